"""Commands to monitor the platform and its projects: status, identity, loops, events, audit log."""

import json
import sys
from datetime import datetime

import click
from vesta_contracts.conductor.v1 import GetLoopRequest, ListDecisionsRequest, Loop, LoopStatus
from vesta_contracts.gateway.v1 import (
    AuditEntryFilter,
    GetIdentityRequest,
    ListAuditEntriesRequest,
    ListPlatformAuditEntriesRequest,
    WatchEventsRequest,
)

from vesta.cli.render import show, show_all
from vesta.cli.session import EXIT_REJECTED, Session, limit_option, pass_session
from vesta.waiting import wait_until
from vesta.watching import watch


@click.command()
@pass_session
def identity(session: Session) -> None:
    """Show the identity of the caller."""
    show(session.client.api_keys.GetIdentity(GetIdentityRequest()), json_output=session.json_output)


@click.command()
@pass_session
def status(session: Session) -> None:
    """Show the problems of the platform with suggested fixes; exit with 1 if there are any."""
    problems = session.client.problems()
    if session.json_output:
        click.echo(json.dumps({"problems": problems}))
    else:
        click.echo("\n".join(problems) or "everything works")
    if problems:
        sys.exit(EXIT_REJECTED)


@click.group()
def loop() -> None:
    """Monitor a loop."""


@loop.command("watch")
@click.argument("name")
@pass_session
def watch_loop(session: Session, name: str) -> None:
    """Print a line on each change of the loop's status, until its budget is spent."""
    last = ""

    def print_status(state: Loop) -> None:
        nonlocal last
        line = f"{LoopStatus.Phase.Name(state.status.phase)}: {state.status.message}"
        if line == last:
            return
        last = line
        if session.json_output:
            show_all([state.status], "json")
        else:
            click.echo(line)

    wait_until(
        lambda: session.client.loops.GetLoop(GetLoopRequest(name=name)),
        lambda state: state.status.phase == LoopStatus.EXHAUSTED,
        print_status,
        deadline=None,
    )


@loop.command("decisions")
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 100_000), default=30, show_default=True)
@pass_session
def list_decisions(session: Session, name: str, limit: int) -> None:
    """List the decisions of a loop with their reasons, newest first."""
    decisions = session.client.pages(
        session.client.loops.ListDecisions, ListDecisionsRequest(parent=name, page_size=min(limit, 1000))
    )
    show_all((decision for decision, _ in zip(decisions, range(limit), strict=False)), session.output)


@click.command()
@click.argument("project")
@click.option("--type", "types", multiple=True, help="A prefix of event types, such as vesta.training.")
@pass_session
def events(session: Session, project: str, types: tuple[str, ...]) -> None:
    """Print the events of a project as they occur, also across restarts of the gateway."""
    for event in watch(session.client.events.WatchEvents, WatchEventsRequest(parent=project, type_prefixes=types)):
        if session.json_output:
            show_all([event], "json")
        else:
            click.echo(f"{event.time.ToDatetime():%H:%M:%S}  {event.type}  {event.subject}")


@click.command()
@click.argument("project", required=False)
@click.option("--caller", default="", help="Only calls by this member, such as projects/acme/members/ada.")
@click.option("--resource", default="", help="Only calls on resources with this name prefix.")
@click.option(
    "--method", default="", help="Only calls of this RPC, such as vesta.datasets.v1.DatasetService.DeleteDataset."
)
@click.option("--code", default="", help="Only calls with this status code, such as PERMISSION_DENIED.")
@click.option("--since", type=click.DateTime(), help="Only calls from this time on, in UTC.")
@limit_option
@pass_session
def audit(
    session: Session,
    project: str | None,
    caller: str,
    resource: str,
    method: str,
    code: str,
    since: datetime | None,
    limit: int,
) -> None:
    """Show the audit log of a project, newest first; without a project, of the whole platform (requires the owner
    key).
    """
    conditions = AuditEntryFilter(caller=caller, resource_prefix=resource, method=method, code=code)
    if since is not None:
        conditions.start_time.FromDatetime(since)
    size, log = min(limit, 1000), session.client.audit
    if project:
        request = ListAuditEntriesRequest(parent=project, filter_by=conditions, page_size=size)
        entries = session.client.pages(log.ListAuditEntries, request)
    else:
        everywhere = ListPlatformAuditEntriesRequest(filter_by=conditions, page_size=size)
        entries = session.client.pages(log.ListPlatformAuditEntries, everywhere)
    for entry, _ in zip(entries, range(limit), strict=False):
        if session.json_output:
            show_all([entry], "json")
        else:
            what = f"{entry.method.rpartition('.')[2]}  {entry.resource}"
            click.echo(f"{entry.time.ToDatetime():%F %T}  {entry.code}  {entry.caller or '-'}  {entry.address}  {what}")

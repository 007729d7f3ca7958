"""The commands: standard methods for all resources, and commands for common workflows."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from google.protobuf import field_mask_pb2, json_format, message_factory
from google.rpc.error_details_pb2 import ErrorInfo
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from vesta_contracts.conductor.v1 import GetLoopRequest, ListDecisionsRequest, Loop, LoopStatus
from vesta_contracts.connection.v1 import Sync
from vesta_contracts.datasets.v1 import (
    ArchiveFormat,
    ExportDatasetRequest,
    ExportDatasetResponse,
    ImportDatasetRequest,
    ImportDatasetResponse,
    TransferProgress,
)
from vesta_contracts.gateway.v1 import (
    AuditEntryFilter,
    GetIdentityRequest,
    ListAuditEntriesRequest,
    ListPlatformAuditEntriesRequest,
    WatchEventsRequest,
)
from vesta_contracts.serving.v1 import RollbackDeploymentRequest
from vesta_contracts.training.v1 import CancelTrainingRunRequest, TrainingRun

from vesta import resources
from vesta.cli.fields import mask_of, read_fields
from vesta.cli.render import OUTPUTS, Output, console, show, show_all
from vesta.cli.settings import find_connection
from vesta.client import Vesta
from vesta.errors import ApiError
from vesta.waiting import wait_until
from vesta.watching import watch

EXIT_REFUSED = 1
EXIT_USAGE = 2
_FORMATS = {"folder": ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER, "coco": ArchiveFormat.ARCHIVE_FORMAT_COCO}


class Session:
    """The context of all commands: the client, opened on first use, and the output format."""

    def __init__(self, address: str | None, api_key: str | None, home: Path, json_output: bool) -> None:
        self._found = (address, api_key, home)
        self.json_output = json_output
        self._client: Vesta | None = None

    @property
    def output(self) -> Output:
        """The default output format of lists."""
        return "json" if self.json_output else "table"

    @property
    def client(self) -> Vesta:
        """The connection to the platform."""
        if self._client is None:
            connection = find_connection(*self._found)
            self._client = Vesta(connection.address, connection.api_key)
        return self._client

    def progress(self) -> Progress:
        """Returns a progress bar on standard error."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=type(console)(stderr=True),
            transient=self.json_output,
        )


pass_session = click.make_pass_decorator(Session)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--address", help="HOST:PORT of the gRPC API of the gateway, or https://HOST:PORT. [env: VESTA_ADDRESS]")
@click.option("--api-key", help="The API key. [env: VESTA_API_KEY]")
@click.option(
    "--home", type=click.Path(path_type=Path), default=Path(".vesta"), help="The home folder of a local platform."
)
@click.option("--json", "json_output", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def cli(context: click.Context, address: str | None, api_key: str | None, home: Path, json_output: bool) -> None:
    """Vesta: build, train and deploy your own image recognition."""
    context.obj = Session(address, api_key, home, json_output)


@cli.command()
@pass_session
def identity(session: Session) -> None:
    """Show the identity of the caller."""
    show(session.client.api_keys.GetIdentity(GetIdentityRequest()), json_output=session.json_output)


@cli.command()
@pass_session
def status(session: Session) -> None:
    """Show the problems of the platform with suggested fixes; exit with 1 if there are any."""
    problems = session.client.problems()
    if session.json_output:
        click.echo(json.dumps({"problems": problems}))
    else:
        click.echo("\n".join(problems) or "everything works")
    if problems:
        sys.exit(EXIT_REFUSED)


@cli.command("get")
@click.argument("name")
@pass_session
def get_resource(session: Session, name: str) -> None:
    """Show one resource, such as projects/acme/datasets/vans."""
    method = _method(resources.type_of(name), "get")
    show(
        resources.call(session.client.channel, method, resources.request_for(method, name=name)),
        json_output=session.json_output,
    )


@cli.command("list")
@click.argument("collection")
@click.option("--filter", "filter_", help="An AIP-160 filter, such as 'split = TEST AND NOT labelled'.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="The maximum number of results."
)
@click.option("-o", "--output", type=click.Choice(OUTPUTS), help="The output format; a table by default.")
@pass_session
def list_resources(session: Session, collection: str, filter_: str | None, limit: int, output: Output | None) -> None:
    """List a collection, such as projects, or projects/acme/datasets."""
    kind = resources.type_of_collection(collection)
    method = _method(kind, "list")
    if filter_ and not resources.can_filter(kind):
        able = sorted({one.plural for one in resources.resource_types() if resources.can_filter(one)})
        raise ValueError(f"{kind.plural} cannot be filtered; omit --filter, or list one of: {', '.join(able)}")
    parent = collection.rpartition("/")[0] or None
    request = resources.request_for(method, parent=parent, filter=filter_, page_size=min(limit, 1000))
    found = session.client.pages(lambda page: resources.call(session.client.channel, method, page), request)
    show_all((resource for resource, _ in zip(found, range(limit), strict=False)), output or session.output)


@cli.command("create")
@click.argument("name")
@click.argument("fields", nargs=-1)
@click.option("--body", help="The resource as JSON; FIELDS override it.")
@pass_session
def create_resource(session: Session, name: str, fields: tuple[str, ...], body: str | None) -> None:
    """Create a resource with a name, or in a collection with a generated id.

    FIELDS are key=value, nested by dots: vesta create projects/acme/members/ada role=ROLE_ANNOTATOR. A value that is
    valid JSON is parsed as JSON, unless the field is a string.
    """
    is_collection = len(name.split("/")) % 2 == 1
    collection, last = (name, "") if is_collection else name.rpartition("/")[::2]
    kind = resources.type_of_collection(collection)
    method = _method(kind, "create")
    known = method.input_type.fields_by_name
    id_field = f"{kind.field}_id"
    if last and id_field not in known:
        raise ValueError(f"the server generates the ids of {kind.plural}; create one with: vesta create {collection}")
    request = resources.request_for(
        method,
        **{kind.field: _message(kind, read_fields(kind.message, fields, body))},
        parent=collection.rpartition("/")[0] or None if "parent" in known else None,
        **({id_field: last} if last else {}),
    )
    show(resources.call(session.client.channel, method, request), json_output=session.json_output)


@cli.command("update")
@click.argument("name")
@click.argument("fields", nargs=-1)
@click.option("--body", help="The fields to update as JSON; FIELDS override it.")
@pass_session
def update_resource(session: Session, name: str, fields: tuple[str, ...], body: str | None) -> None:
    """Update the given FIELDS of a resource.

    FIELDS are key=value, as for create; null clears a field: vesta update projects/acme/loops/vans paused=true.
    """
    kind = resources.type_of(name)
    get, method = _method(kind, "get"), _method(kind, "update")
    given = read_fields(kind.message, fields, body)
    message = _message(kind, given)
    mask = field_mask_pb2.FieldMask(paths=mask_of(kind.message, given))
    if not mask.paths:
        raise ValueError("no fields to update; set some, such as displayName=Vans")
    message.name = name
    if "etag" in kind.message.fields_by_name and not message.etag:  # protects concurrent updates
        message.etag = resources.call(session.client.channel, get, resources.request_for(get, name=name)).etag
    request = resources.request_for(method, **{kind.field: message}, update_mask=mask)
    show(resources.call(session.client.channel, method, request), json_output=session.json_output)


@cli.command("delete")
@click.argument("name")
@click.option(
    "--force",
    is_flag=True,
    help="Also delete its child resources, such as the versions of a model or all resources of a project.",
)
@pass_session
def delete_resource(session: Session, name: str, force: bool) -> None:
    """Delete one resource. A project is deleted in the background."""
    kind = resources.type_of(name)
    method = _method(kind, "delete")
    if force and "force" not in method.input_type.fields_by_name:
        raise ValueError(f"a {kind.singular} cannot be deleted with --force; omit it")
    request = resources.request_for(method, name=name, force=force or None)
    answer = resources.call(session.client.channel, method, request)
    word = "deleting" if "state" in answer.DESCRIPTOR.fields_by_name else "deleted"  # otherwise the response is Empty
    if session.json_output:
        click.echo(json.dumps({word: name}))
    else:
        click.echo(f"{word} {name}", err=True)


@cli.command()
@click.argument("source")
@pass_session
def sync(session: Session, source: str) -> None:
    """Ingest new files of a Source, and wait."""
    with session.progress() as progress:
        bar = progress.add_task("syncing", total=None)

        def advance(state: Sync) -> None:
            done = state.added_count + state.unchanged_count + state.duplicate_count + state.rejected_count
            progress.update(bar, completed=done, total=state.found_count if state.listed else None)

        ended = session.client.sync(source, advance)
    show(ended, json_output=session.json_output)
    if ended.state != Sync.SUCCEEDED:
        sys.exit(EXIT_REFUSED)


@cli.command()
@click.argument("source")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_session
def upload(session: Session, source: str, files: tuple[Path, ...]) -> None:
    """Upload image files through a Source of kind upload."""
    refused = 0
    with session.progress() as progress:
        for path in progress.track(files, description="uploading"):
            try:
                answer = session.client.upload(source, path)
            except ApiError as error:
                refused += 1
                click.echo(f"{path}: {error}", err=True)
                continue
            if session.json_output:
                show_all([answer], "json")
            else:
                click.echo(f"{path}\t{answer.item}" + ("\t(was there)" if answer.already_existed else ""))
    if refused:
        sys.exit(EXIT_REFUSED)


@cli.command("import")
@click.argument("dataset")
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", "format_", type=click.Choice(sorted(_FORMATS)), default="folder", show_default=True)
@click.option("--reviewed", is_flag=True, help="A second person has checked the labels.")
@pass_session
def import_dataset(session: Session, dataset: str, archive: Path, format_: str, *, reviewed: bool) -> None:
    """Import a zip archive of labelled images into a dataset, and wait."""
    key = session.client.upload_archive(_project_of(dataset), archive)
    request = ImportDatasetRequest(name=dataset, format=_FORMATS[format_], archive_key=key, reviewed=reviewed)
    operation = session.client.datasets.ImportDataset(request)
    _finish(session, operation.name, "importing", ImportDatasetResponse())


@cli.command("export")
@click.argument("dataset")
@click.argument("archive", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--format", "format_", type=click.Choice(sorted(_FORMATS)), default="folder", show_default=True)
@click.option("--snapshot", help="The snapshot to export.")
@pass_session
def export_dataset(session: Session, dataset: str, archive: Path, format_: str, snapshot: str | None) -> None:
    """Export labelled items as a zip archive, and wait."""
    if not archive.parent.is_dir():
        raise ValueError(f"{archive.parent} is not a folder; create it first, or choose another path")
    request = ExportDatasetRequest(name=dataset, format=_FORMATS[format_], snapshot=snapshot or "")
    operation = session.client.datasets.ExportDataset(request)
    answer = ExportDatasetResponse()
    _finish(session, operation.name, "exporting", answer)
    session.client.download_archive(_project_of(dataset), answer.archive_key, archive)


@cli.command()
@click.argument("deployment")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_session
def predict(session: Session, deployment: str, files: tuple[Path, ...]) -> None:
    """Predict labels of image files with a deployed model."""
    with session.progress() as progress:
        read = (path.read_bytes() for path in progress.track(files, description="tagging"))
        answers = session.client.predict(deployment, read)
    if session.json_output:
        show_all(answers, "json")
        return
    for path, answer in zip(files, answers, strict=True):
        labels = ", ".join(f"{label.concept} {label.score:.2f}" for label in answer.labels) or "nothing"
        doubt = " (uncertain)" if answer.uncertain else ""
        click.echo(f"{path}\t{answer.reason + ': ' + answer.message if answer.reason else labels + doubt}")


@cli.command()
@click.argument("deployment")
@pass_session
def rollback(session: Session, deployment: str) -> None:
    """Roll a deployment back to its previous version."""
    answer = session.client.deployments.RollbackDeployment(RollbackDeploymentRequest(name=deployment))
    show(answer, json_output=session.json_output)


@cli.group()
def runs() -> None:
    """Monitor and cancel training runs."""


@runs.command("watch")
@click.argument("name")
@pass_session
def watch_run(session: Session, name: str) -> None:
    """Monitor a run until it ends."""
    with session.progress() as progress:
        bar = progress.add_task("waiting", total=None)

        def advance(run: TrainingRun) -> None:
            loss = f" loss {run.progress.loss:.3f}" if run.progress.HasField("loss") else ""
            left = run.progress.time_left.ToTimedelta().total_seconds()
            what = run.waiting_reason or f"{run.progress.phase}{loss}" + (f", {left:.0f} s left" if left else "")
            progress.update(bar, description=what, completed=run.progress.step, total=run.progress.step_count or None)

        ended = session.client.wait_for_run(name, advance)
    show(ended, json_output=session.json_output)
    if ended.state != TrainingRun.SUCCEEDED:
        sys.exit(EXIT_REFUSED)


@runs.command("cancel")
@click.argument("name")
@pass_session
def cancel_run(session: Session, name: str) -> None:
    """Cancel a run."""
    answer = session.client.training_runs.CancelTrainingRun(CancelTrainingRunRequest(name=name))
    show(answer, json_output=session.json_output)


@cli.group()
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
    found = session.client.pages(
        session.client.loops.ListDecisions, ListDecisionsRequest(parent=name, page_size=min(limit, 1000))
    )
    show_all((decision for decision, _ in zip(found, range(limit), strict=False)), session.output)


@cli.command()
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


@cli.command()
@click.argument("project", required=False)
@click.option("--caller", default="", help="Only calls by this member, such as projects/acme/members/ada.")
@click.option("--resource", default="", help="Only calls on resources with this name prefix.")
@click.option(
    "--method", default="", help="Only calls of this RPC, such as vesta.datasets.v1.DatasetService.DeleteDataset."
)
@click.option("--code", default="", help="Only calls with this status code, such as PERMISSION_DENIED.")
@click.option("--since", type=click.DateTime(), help="Only calls from this time on, in UTC.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="The maximum number of results."
)
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
    wanted = AuditEntryFilter(caller=caller, resource_prefix=resource, method=method, code=code)
    if since is not None:
        wanted.start_time.FromDatetime(since)
    size, log = min(limit, 1000), session.client.audit
    if project:
        request = ListAuditEntriesRequest(parent=project, filter_by=wanted, page_size=size)
        found = session.client.pages(log.ListAuditEntries, request)
    else:
        everywhere = ListPlatformAuditEntriesRequest(filter_by=wanted, page_size=size)
        found = session.client.pages(log.ListPlatformAuditEntries, everywhere)
    for entry, _ in zip(found, range(limit), strict=False):
        if session.json_output:
            show_all([entry], "json")
        else:
            what = f"{entry.method.rpartition('.')[2]}  {entry.resource}"
            click.echo(f"{entry.time.ToDatetime():%F %T}  {entry.code}  {entry.caller or '-'}  {entry.address}  {what}")


def _finish(session: Session, operation: str, what: str, answer: Any) -> None:
    """Waits for an operation with a progress bar, and prints its response or exits with its error."""
    with session.progress() as progress:
        bar = progress.add_task(what, total=None)

        def advance(state: Any) -> None:
            known = TransferProgress()
            if state.metadata.Unpack(known):
                progress.update(bar, completed=known.done_count, total=known.total_count or None)

        ended = session.client.wait_for_operation(operation, advance)
    if ended.HasField("error"):
        raise click.ClickException(_message_of(ended.error))
    ended.response.Unpack(answer)
    show(answer, json_output=session.json_output)


def _message_of(error: Any) -> str:
    """Returns the status code and message of a failed operation."""
    for detail in error.details:
        info = ErrorInfo()
        if detail.Unpack(info):
            return f"{error.message} [{info.reason}]"
    return str(error.message)


def _message(kind: resources.ResourceType, given: dict[str, Any]) -> Any:
    return json_format.ParseDict(given, message_factory.GetMessageClass(kind.message)())


def _method(kind: resources.ResourceType, verb: str) -> Any:
    if verb not in kind.methods:
        raise ValueError(f"{kind.plural} do not support {verb!r}; supported: {', '.join(sorted(kind.methods))}")
    return kind.methods[verb]


def _project_of(name: str) -> str:
    return "/".join(name.split("/")[:2])


def main() -> None:
    """The entry point: prints errors as one message, and sets the exit code."""
    try:
        cli(standalone_mode=False)
    except ApiError as error:
        click.echo(f"rejected: {error}", err=True)
        sys.exit(EXIT_REFUSED)
    except (ValueError, json_format.ParseError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_USAGE)
    except OSError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)


if __name__ == "__main__":
    main()

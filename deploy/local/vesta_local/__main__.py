"""`python -m vesta_local up | down | status | forget | logs | env | wheels`: the platform on this machine. `make` calls these."""

import json
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from vesta_admin.catalogue import topics
from vesta_common.settings import load_settings

from vesta_local import services, wheels
from vesta_local.engines import apache_kafka, external_engines, retention
from vesta_local.home import BROKERS, Home
from vesta_local.platform import Platform
from vesta_local.settings import Settings

console = Console(highlight=False, soft_wrap=True)
LOG_LINES = 50


@click.group()
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".vesta"),
    envvar="VESTA_HOME",
    show_default=True,
    help="The folder of the platform's state.",
)
@click.pass_context
def cli(context: click.Context, home: Path) -> None:
    """Vesta on this machine."""
    context.obj = Home(home.resolve())


@cli.command()
@click.option("--only", default="", help="Start only these programs, separated by commas.")
@click.option(
    "--replicas",
    type=int,
    default=None,
    help="The number of replicas of each service and of Triton; unchanged by default.",
)
@click.option("--kafka", type=click.Choice(BROKERS), help="The broker of a new home; the embedded one by default.")
@click.pass_obj
def up(home: Home, only: str, replicas: int | None, kafka: str | None) -> None:
    """Start everything that does not run, and wait until it is healthy.

    External engines are configured by VESTA_LOCAL_… variables at the first start, and remembered; see docs/operating.md.
    """
    engines = load_settings(Settings)
    if engines.external:
        external_engines.choose(home, engines)
    if kafka:
        home.choose_broker(kafka)
    if replicas is not None:
        home.choose_replicas(replicas)
    platform = Platform(home, [name for name in only.split(",") if name])
    start = time.monotonic()
    with console.status("starting …"):
        platform.up(lambda text: console.print(f"[dim]{time.monotonic() - start:5.1f} s[/dim]  {text}"))
    _show(platform)
    if "gateway" in platform.names:
        _ = home.owner_key
        console.print(
            f"\nREST http://{home.address('gateway')} (its pages: /docs), gRPC {home.address('gateway_grpc')}"
        )
        console.print(f"The API key of the owner is in {home.owner_key_path}")


@cli.command()
@click.pass_obj
def down(home: Home) -> None:
    """Stop everything; what it knows stays."""
    with console.status("stopping …"):
        stopped = Platform(home).down()
    console.print("stopped" if stopped else "nothing is running")


@cli.command()
@click.option("--json", "json_output", is_flag=True, help="For programs.")
@click.pass_obj
def status(home: Home, json_output: bool) -> None:
    """Show each program with its address, state and memory."""
    platform = Platform(home)
    if json_output:
        click.echo(json.dumps([vars(row) for row in platform.rows()]))
    else:
        _show(platform)


@cli.command()
@click.pass_obj
def forget(home: Home) -> None:
    """Remove events that are of no more use; a platform that is up does so by itself."""
    count = retention.delete_old_records(home, topics(), datetime.now(UTC))
    click.echo(f"{datetime.now(UTC).isoformat(timespec='seconds')} {count} events removed")


@cli.command("fetch-kafka")
def fetch_kafka() -> None:
    """Fetch Apache Kafka, and a Java if the machine has none, into the cache; describe what is missing if that fails."""
    try:
        apache_kafka.fetch()
    except apache_kafka.Unavailable as error:
        raise click.ClickException(str(error)) from error


@cli.command()
@click.argument("name")
@click.pass_obj
def restart(home: Home, name: str) -> None:
    """Kill one program and wait until it is healthy again."""
    Platform(home, [name]).restart(name)


@cli.command()
@click.argument("service", required=False)
@click.option("--follow/--no-follow", default=True, help="Follow the log.")
@click.pass_obj
def logs(home: Home, service: str | None, follow: bool) -> None:
    """Show the logs of one program, or of all, as they grow."""
    paths = sorted(home.logs.glob(f"{service or '*'}.log"))
    if not paths:
        known = ", ".join(sorted(path.stem for path in home.logs.glob("*.log"))) or "none yet"
        raise click.ClickException(f"no log of {service or 'any service'}; logs: {known}")
    following = ["-F"] if follow else []
    try:
        subprocess.run(["tail", *following, "-n", str(LOG_LINES), *map(str, paths)], check=False)
    except KeyboardInterrupt:
        sys.exit(0)


@cli.command()
@click.argument("service", type=click.Choice(services.NAMES))
@click.pass_obj
def env(home: Home, service: str) -> None:
    """Print a service's settings as shell commands, to run it by hand."""
    for name, value in services.environment(home, service).items():
        click.echo(f"export {name}={shlex.quote(value)}")


@cli.command("wheels")
def build_wheels() -> None:
    """Build the wheels that customers install into dist/; the gateway offers them at /simple/."""
    for path in wheels.build():
        click.echo(path)


def _show(platform: Platform) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("service", "address", "state"):
        table.add_column(column)
    table.add_column("memory", justify="right")
    rows = platform.rows()
    for row in rows:
        colour = "green" if row.state == "healthy" else "yellow" if row.state.startswith("low") else "red"
        table.add_row(row.name, row.address, f"[{colour}]{row.state}[/{colour}]", f"{row.memory_mib:.0f} MiB")
    table.add_section()
    table.add_row("all", "", "", f"{sum(row.memory_mib for row in rows):.0f} MiB", style="bold")
    console.print(table)


def main() -> None:
    """Runs the command line. Prints an error as a message instead of a traceback."""
    try:
        cli()
    except (RuntimeError, OSError, subprocess.CalledProcessError, xmlrpc.client.Error) as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(1)


if __name__ == "__main__":
    main()

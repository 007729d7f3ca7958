"""`python -m vesta_local up | down | status | logs | env | setup`: the platform on this machine. `make` calls these."""

import json
import subprocess
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from vesta_local.engines import inference
from vesta_local.home import Home
from vesta_local.platform import Platform

console = Console()
LOG_LINES = 50


@click.group()
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    default=Path(".vesta"),
    show_default=True,
    help="Where the platform's state lies.",
)
@click.pass_context
def cli(context: click.Context, home: Path) -> None:
    """Vesta on this machine."""
    context.obj = home


@cli.command()
@click.option("--only", default="", help="Start these programs alone, separated by commas.")
@click.pass_obj
def up(home_path: Path, only: str) -> None:
    """Start everything that does not run, and wait until it is healthy."""
    home = Home(home_path.resolve())
    platform = Platform(home, [name for name in only.split(",") if name])
    with console.status("starting …") as status:
        platform.up(status.update)
    _show(platform)
    console.print(f"REST  http://{home.address('gateway')}   API at /docs   gRPC {home.address('gateway_grpc')}")
    _ = home.owner_key
    console.print(f"The owner's API key is in {home.owner_key_path}")


@cli.command()
@click.pass_obj
def down(home_path: Path) -> None:
    """Stop everything; what it knows stays."""
    platform = Platform(Home(home_path.resolve()))
    if not platform.supervisor.is_running():
        console.print("nothing is running")
        return
    platform.down()
    console.print("stopped")


@cli.command()
@click.option("--json", "json_output", is_flag=True)
@click.pass_obj
def status(home_path: Path, json_output: bool) -> None:
    """Show each program with its address, state and memory."""
    platform = Platform(Home(home_path.resolve()))
    if json_output:
        click.echo(json.dumps([vars(row) for row in platform.rows()]))
        return
    _show(platform)


@cli.command()
@click.argument("service", required=False)
@click.pass_obj
def logs(home_path: Path, service: str | None) -> None:
    """Follow the logs of one program, or of all."""
    folder = Home(home_path.resolve()).logs
    paths = sorted(folder.glob(f"{service}.log" if service else "*.log"))
    if not paths:
        known = ", ".join(sorted(path.stem for path in folder.glob("*.log"))) or "none yet"
        raise click.ClickException(f"there is no log of {service}; those there are: {known}")
    try:
        subprocess.run(["tail", "-n", str(LOG_LINES), "-F", *map(str, paths)], check=False)
    except KeyboardInterrupt:
        sys.exit(0)


@cli.command()
@click.argument("service")
@click.pass_obj
def env(home_path: Path, service: str) -> None:
    """Print a service's settings as shell assignments, to run it by hand."""
    from vesta_local.services import environment

    for name, value in environment(Home(home_path.resolve()), service).items():
        click.echo(f"export {name}='{value}'")


@cli.command()
def setup() -> None:
    """Install what the engines need beside this environment; quick when it is there."""
    inference.setup()


def _show(platform: Platform) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("service", "address", "state"):
        table.add_column(column)
    table.add_column("memory", justify="right")
    rows = platform.rows()
    for row in rows:
        colour = "green" if row.state == "healthy" else "red"
        table.add_row(row.name, row.address, f"[{colour}]{row.state}[/{colour}]", f"{row.memory_mib:.0f} MiB")
    table.add_row("", "", "", f"[bold]{sum(row.memory_mib for row in rows):.0f} MiB[/bold]")
    console.print(table)


def main() -> None:
    """The entry point: what went wrong is one line, not a trace."""
    try:
        cli()
    except (RuntimeError, PermissionError, subprocess.CalledProcessError) as error:
        console.print(f"[red]{error}[/red]")
        sys.exit(1)


if __name__ == "__main__":
    main()

"""`vesta-admin setup | migrate | check | certificates`: prepares and checks what the services need. Settings are `VESTA_ADMIN_…`."""

import sys

import click
from vesta_common import log as logs
from vesta_common.settings import load_settings

from vesta_admin.settings import Settings
from vesta_admin.setup import EngineError, check, migrate, set_up


@click.group()
def cli() -> None:
    """Prepares what Vesta's services need."""


@cli.command()
def setup() -> None:
    """Create the database, its extensions, the bucket and the topics, where they are missing."""
    _report(set_up(_settings()), "created")


@cli.command("migrate")
@click.argument("phase", type=click.Choice(["pre", "post"]))
def migrate_command(phase: str) -> None:
    """Apply every service's migrations: `pre` before the new version is started, `post` after the last old replica has ended."""
    _report(migrate(_settings(), post=phase == "post"), "applied")


@cli.command("check")
@click.option("--repair", is_flag=True, help="Correct the counts that differ.")
def check_command(*, repair: bool) -> None:
    """Compare the counts of each dataset with its items; exits with status 1 if any differ and are not repaired."""
    differences = check(_settings(), repair=repair)
    for dataset, rows, difference in differences:
        click.echo(f"{'repaired ' if repair else ''}{dataset}: {difference} {rows} are counted wrongly")
    if not differences:
        click.echo("all counts are correct")
    elif not repair:
        sys.stderr.write("run `vesta-admin check --repair` to correct the counts; the services may be running\n")
        sys.exit(1)


@cli.command()
@click.option("--namespace", required=True, help="The namespace of the release.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label of the Secrets.")
def certificates(namespace: str, labels: tuple[str, ...]) -> None:
    """Make and renew the Secrets with the services' certificates, from a pod of the cluster."""
    from vesta_admin.certificates import renew_secrets  # imports the Kubernetes client, which only this command needs

    _report(renew_secrets(namespace, dict(label.split("=", 1) for label in labels)), "wrote")


def _settings() -> Settings:
    settings = load_settings(Settings)
    logs.start_logging("admin", settings.log_level, settings.log_format)
    return settings


def _report(done: list[str], word: str) -> None:
    for entry in done:
        click.echo(f"{word} {entry}")
    if not done:
        click.echo("nothing to do")


def main() -> None:
    """Runs the command line. Prints an error as one sentence and exits with status 1."""
    try:
        cli()
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()

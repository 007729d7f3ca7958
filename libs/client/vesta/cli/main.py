"""The command line: its options, its commands, and its exit codes."""

import sys
from pathlib import Path

import click
from google.protobuf import json_format

from vesta.cli.commands import data, evaluation, models, monitoring, pretrained, resources
from vesta.cli.session import EXIT_REJECTED, EXIT_USAGE, Session
from vesta.errors import ApiError


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


for _command in (
    monitoring.identity,
    monitoring.status,
    resources.get_resource,
    resources.list_resources,
    resources.create_resource,
    resources.update_resource,
    resources.delete_resource,
    data.sync,
    data.upload,
    data.import_dataset,
    data.export_dataset,
    evaluation.evaluate_results,
    models.predict,
    models.rollback,
    models.runs,
    pretrained.models,
    monitoring.loop,
    monitoring.events,
    monitoring.audit,
):
    cli.add_command(_command)


def main() -> None:
    """The entry point: prints errors as one message, and sets the exit code."""
    try:
        cli(standalone_mode=False)
    except ApiError as error:
        click.echo(f"rejected: {error}", err=True)
        sys.exit(EXIT_REJECTED)
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

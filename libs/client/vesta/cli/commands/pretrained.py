"""Commands for models that were trained elsewhere."""

import re
from itertools import islice
from pathlib import Path

import click
from vesta_contracts.conductor.v1 import ListProjectsRequest

from vesta.cli.render import show
from vesta.cli.session import Session, pass_session

ID_LENGTH_MAX = 63


@click.group()
def models() -> None:
    """Import models that were trained elsewhere."""


@models.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--card",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The model card: YAML, or Markdown with a YAML header. Its key license is required.",
)
@click.option("--project", help="The project, such as projects/acme. It can be omitted if there is only one.")
@click.option("--id", "detector_id", help="The id of the detector; by default, the name of the file.")
@pass_session
def import_detector(session: Session, file: Path, card: Path, project: str | None, detector_id: str | None) -> None:
    """Import a pretrained detector from an ONNX file, from which trainings of detectors can start."""
    parent = project or _only_project(session)
    imported = session.client.import_detector(parent, file, _text_of(card), detector_id or id_of(file.stem))
    show(imported, json_output=session.json_output)


def id_of(text: str) -> str:
    """Returns a valid id that is similar to a text; empty if the text contains no letter."""
    words = re.findall("[a-z0-9]+", text.lower())
    return "-".join(words).lstrip("0123456789-")[:ID_LENGTH_MAX].rstrip("-")


def _text_of(card: Path) -> str:
    try:
        return card.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(
            f"{card} is no text; write YAML, or Markdown with a YAML header, with the key license"
        ) from None


def _only_project(session: Session) -> str:
    """Returns the only project that the API key can access.

    Raises:
        ValueError: there is none, or there are several.
    """
    listed = session.client.pages(session.client.projects.ListProjects, ListProjectsRequest())
    names = [str(project.name) for project in islice(listed, 10)]
    if len(names) != 1:
        raise ValueError(f"set --project to one of the projects: {', '.join(names) or 'there are none'}")
    return names[0]

"""Commands that move images and labels: sync, upload, import, export."""

import sys
from pathlib import Path
from typing import Any

import click
from google.rpc.error_details_pb2 import ErrorInfo
from vesta_contracts.connection.v1 import Sync
from vesta_contracts.datasets.v1 import (
    ArchiveFormat,
    ExportDatasetRequest,
    ExportDatasetResponse,
    ImportDatasetRequest,
    ImportDatasetResponse,
    TransferProgress,
)

from vesta.cli.render import show, show_all
from vesta.cli.session import EXIT_REJECTED, Session, pass_session
from vesta.errors import ApiError

_FORMATS = {
    "folder": ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER,
    "coco": ArchiveFormat.ARCHIVE_FORMAT_COCO,
    "yolo": ArchiveFormat.ARCHIVE_FORMAT_YOLO,
    "voc": ArchiveFormat.ARCHIVE_FORMAT_PASCAL_VOC,
}
_DETECTED = "detect"


@click.command()
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
        sys.exit(EXIT_REJECTED)


@click.command()
@click.argument("source")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_session
def upload(session: Session, source: str, files: tuple[Path, ...]) -> None:
    """Upload image files through a Source of kind upload."""
    rejected = 0
    with session.progress() as progress:
        for path in progress.track(files, description="uploading"):
            try:
                answer = session.client.upload(source, path)
            except ApiError as error:
                rejected += 1
                click.echo(f"{path}: {error}", err=True)
                continue
            if session.json_output:
                show_all([answer], "json")
            else:
                click.echo(f"{path}\t{answer.item}" + ("\t(already exists)" if answer.already_existed else ""))
    if rejected:
        sys.exit(EXIT_REJECTED)


@click.command("import")
@click.argument("dataset")
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--format", "format_", type=click.Choice([_DETECTED, *sorted(_FORMATS)]), default=_DETECTED, show_default=True
)
@click.option("--reviewed", is_flag=True, help="A second person has checked the labels.")
@pass_session
def import_dataset(session: Session, dataset: str, archive: Path, format_: str, *, reviewed: bool) -> None:
    """Import a zip archive of labelled images into a dataset, and wait."""
    key = session.client.upload_archive(_project_of(dataset), archive)
    request = ImportDatasetRequest(
        name=dataset,
        format=_FORMATS.get(format_, ArchiveFormat.ARCHIVE_FORMAT_UNSPECIFIED),
        archive_key=key,
        reviewed=reviewed,
    )
    operation = session.client.datasets.ImportDataset(request)
    answer = ImportDatasetResponse()
    _finish(session, operation.name, "importing", answer)
    show(answer, json_output=session.json_output)


@click.command("export")
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
    show(export_archive(session, request, archive), json_output=session.json_output)


def export_archive(session: Session, request: ExportDatasetRequest, archive: Path) -> ExportDatasetResponse:
    """Exports a dataset, waits, and downloads the archive."""
    operation = session.client.datasets.ExportDataset(request)
    answer = ExportDatasetResponse()
    _finish(session, operation.name, "exporting", answer)
    session.client.download_archive(_project_of(request.name), answer.archive_key, archive)
    return answer


def _finish(session: Session, operation: str, what: str, answer: Any) -> None:
    """Waits for an operation with a progress bar, and unpacks its response into `answer`, or exits with its error."""
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


def _message_of(error: Any) -> str:
    """Returns the status code and message of a failed operation."""
    for detail in error.details:
        info = ErrorInfo()
        if detail.Unpack(info):
            return f"{error.message} [{info.reason}]"
    return str(error.message)


def _project_of(name: str) -> str:
    return "/".join(name.split("/")[:2])

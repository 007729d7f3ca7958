"""Reads and writes dataset archives. Archives are unpacked within limits, and items are checked before they are written."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from vesta_common.errors import FailedPrecondition, InvalidArgument
from vesta_common.sandbox import Limits, run_in_folder
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.datasets.v1 import ArchiveFormat

from vesta_datasets.archives.class_folders import check_for_folders, read_folders, write_to_folders
from vesta_datasets.archives.coco_writer import CocoWriter, check_for_coco
from vesta_datasets.archives.layout import ArchivedItem, CocoImage, UnreadableArchiveError, cannot_hold, parse_split
from vesta_datasets.archives.zip_writer import ZipWriter

LIMITS = Limits(memory_bytes_max=4 * 1024**3, cpu_seconds_max=15 * 60, file_bytes_max=1024**3)
TIMEOUT = timedelta(minutes=30)
"""Timeout of each step of reading an archive."""


def unpack(
    archive: Path, folder: Path, layout: ArchiveFormat.ValueType, timeout: timedelta = TIMEOUT
) -> list[ArchivedItem]:
    """Unpacks an archive and returns its images, ordered by file name.

    The result includes images that the archive's annotation files name but that the archive does not contain.

    Args:
        archive: the zip file, in a folder that only the caller uses.
        folder: created for the files, in the same folder as the archive.
        timeout: of unpacking, and again of reading.

    Raises:
        UnreadableArchiveError: the file is not a zip archive, is a zip bomb, has entries that lead outside of it, or does not
            have the expected layout.
    """
    _run("vesta_datasets.archives.unzip:unpack_zip", folder.parent, (archive.name, folder.name), timeout)
    return read_unpacked(folder, layout, timeout)


def read_unpacked(folder: Path, layout: ArchiveFormat.ValueType, timeout: timedelta = TIMEOUT) -> list[ArchivedItem]:
    """Returns the images of an unpacked archive; see `unpack`.

    Raises:
        UnreadableArchiveError: the archive does not have the expected layout.
    """
    root = _root_of(folder)
    items = read_folders(root) if layout == ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER else _read_coco(root, timeout)
    if not any(item.is_there for item in items):
        raise UnreadableArchiveError(
            "the archive has no image in the requested format: one folder per class (optionally "
            "below train, val and test), or annotations/ and images/ for COCO"
        )
    return items


def check(item: ArchivedItem, layout: ArchiveFormat.ValueType) -> None:
    """Checks that a layout can represent the annotations of an image. Its file is not needed.

    Raises:
        FailedPrecondition: FORMAT_CANNOT_REPRESENT.
    """
    for annotation in item.annotations or ():
        if annotation.attributes:
            raise cannot_hold(
                item,
                f"an annotation with the attribute {min(annotation.attributes)!r}",
                "no format represents attributes",
            )
    if layout == ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER:
        check_for_folders(item)
    else:
        check_for_coco(item)


def pack(items: Iterable[ArchivedItem], concepts: Sequence[str], layout: ArchiveFormat.ValueType, folder: Path) -> Path:
    """Writes an archive of labelled images and returns its path, `<folder>.zip`. Memory does not depend on their number.

    The scores of annotations are not exported, because they are not part of what was accepted.

    Args:
        items: each is written before the next one is requested. Its file name without the suffix is the id of the item.
        concepts: all concepts that the items can have, in a stable order.

    Raises:
        FailedPrecondition: EXPORT_EMPTY, there are no items; FORMAT_CANNOT_REPRESENT, the layout cannot represent an annotation.
    """
    path = folder.with_suffix(".zip")
    is_empty = True
    with ZipWriter(path) as archive, CocoWriter(archive, concepts, folder.parent) as coco:
        for item in items:
            is_empty = False
            check(item, layout)
            if layout == ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER:
                write_to_folders(item, archive)
            else:
                coco.add(item)
        coco.finish()
    if is_empty:
        raise FailedPrecondition("no item is labelled; label items first", reason="EXPORT_EMPTY")
    return path


def _read_coco(root: Path, timeout: timedelta) -> list[ArchivedItem]:
    images: list[CocoImage] = _run("vesta_datasets.archives.coco:read_coco", root, None, timeout)
    items = []
    for image in images:
        path = (root / image.path).resolve()
        if not path.is_relative_to(root.resolve()):
            raise UnreadableArchiveError(f"the archive refers to {image.path!r}, which is outside of the archive")
        annotations = None if image.annotations is None else [*map(Annotation.FromString, image.annotations)]
        items.append(ArchivedItem(image.path, path, image.split, annotations))
    return items


def _run(function: str, folder: Path, argument: Any, timeout: timedelta) -> Any:
    """Runs a function in a sandboxed child process that can access only the folder.

    Raises:
        UnreadableArchiveError: raised by the function, or the function exceeded its memory or time limit.
    """
    try:
        return run_in_folder(function, folder, argument, LIMITS, timeout)
    except InvalidArgument as error:
        if error.reason != "IMAGE_TOO_EXPENSIVE":
            raise
        raise UnreadableArchiveError(
            "reading the archive exceeds the limit of memory or time; split it into smaller archives"
        ) from error


def _root_of(folder: Path) -> Path:
    """Returns the folder with the content. Many tools wrap the content of an archive in one more folder."""
    while True:
        inside = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
        if len(inside) != 1 or not inside[0].is_dir() or _has_a_meaning(inside[0].name):
            return folder
        if not any(entry.is_dir() for entry in inside[0].iterdir()):
            return folder
        folder = inside[0]


def _has_a_meaning(name: str) -> bool:
    return bool(parse_split(name)) or name.lower() in {"annotations", "images"}

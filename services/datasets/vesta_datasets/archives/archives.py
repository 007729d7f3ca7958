"""Reads and writes dataset archives. Archives are unpacked within limits, and items are checked before they are written."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from vesta_common.errors import FailedPrecondition, InvalidArgument
from vesta_common.sandbox import Limits, run_in_folder
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.datasets.v1 import ArchiveFormat

from vesta_datasets.archives.class_folders import FolderWriter, check_for_folders, read_folders
from vesta_datasets.archives.coco_writer import CocoWriter, check_for_coco
from vesta_datasets.archives.entries import Entries
from vesta_datasets.archives.layout import ArchivedItem, UnreadableArchiveError, parse_split
from vesta_datasets.archives.voc_writer import VocWriter, check_for_voc
from vesta_datasets.archives.yolo_writer import YoloWriter, check_for_yolo
from vesta_datasets.archives.zip_writer import ZipWriter

LIMITS = Limits(memory_bytes_max=4 * 1024**3, cpu_seconds_max=15 * 60, file_bytes_max=16 * 1024**3)
TIMEOUT = timedelta(minutes=30)
"""Timeout of each step of reading an archive."""
ALL_SHAPES: Final = frozenset(field.name for field in Annotation.DESCRIPTOR.oneofs_by_name["shape"].fields)
_CHECKS: Final[Mapping[ArchiveFormat.ValueType, Callable[[ArchivedItem], None]]] = {
    ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER: check_for_folders,
    ArchiveFormat.ARCHIVE_FORMAT_COCO: check_for_coco,
    ArchiveFormat.ARCHIVE_FORMAT_YOLO: check_for_yolo,
    ArchiveFormat.ARCHIVE_FORMAT_PASCAL_VOC: check_for_voc,
}
_FOLDERS: Final = {"annotations", "images", "labels", "jpegimages", "imagesets"}
"""Names of folders that have a meaning, in lower case."""


_LAYOUTS: Final = (
    "one folder per class (optionally below train, val and test); annotations/ and images/ for COCO; data.yaml, obj.data or classes.txt "
    "beside images and rows for YOLO; Annotations/ and JPEGImages/ for Pascal VOC"
)


def unpack(
    archive: Path,
    folder: Path,
    layout: ArchiveFormat.ValueType,
    shapes: Collection[str] = ALL_SHAPES,
    timeout: timedelta = TIMEOUT,
) -> Collection[ArchivedItem]:
    """Unpacks an archive and returns its images, ordered by file name.

    The result includes images that the archive's annotation files name but that the archive does not contain.

    Args:
        archive: the zip file, in a folder that only the caller uses.
        folder: created for the files, in the same folder as the archive.
        layout: unspecified to detect it.
        shapes: that the importing dataset allows. Of the shapes that the archive has of one object, the first allowed one is returned.
        timeout: of unpacking, and again of reading.

    Raises:
        UnreadableArchiveError: the file is not a zip archive, is a zip bomb, has entries that lead outside of it, or does not
            have the expected layout.
    """
    _run("vesta_datasets.archives.unzip:unpack_zip", folder.parent, (archive.name, folder.name), timeout)
    return read_unpacked(folder, layout, shapes, timeout)


def read_unpacked(
    folder: Path,
    layout: ArchiveFormat.ValueType,
    shapes: Collection[str] = ALL_SHAPES,
    timeout: timedelta = TIMEOUT,
) -> Collection[ArchivedItem]:
    """Returns the images of an unpacked archive; see `unpack`.

    Raises:
        UnreadableArchiveError: the archive does not have the expected layout, or is invalid.
    """
    root = _root_of(folder)
    items: Collection[ArchivedItem] = ()
    if layout != ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER:
        entries = f"{folder.name}.entries"
        argument = (str(root.relative_to(folder.parent)), entries, layout, tuple(sorted(shapes)))
        layout, count = _run("vesta_datasets.archives.reading:read_archive", folder.parent, argument, timeout)
        items = Entries(folder.parent / entries, root, count)
    if layout == ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER:
        items = read_folders(root)
    if not any(item.is_there for item in items):
        raise UnreadableArchiveError(f"the archive has no image in the requested format: {_LAYOUTS}")
    if layout == ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER and "image_label" not in shapes:
        _check_unlabelled(items)
    return items


def _check_unlabelled(items: Iterable[ArchivedItem]) -> None:
    """Rejects class folders, for a dataset of shapes."""
    labelled = next((item.file_name for item in items if item.annotations), "")
    if labelled:
        raise UnreadableArchiveError(
            f"the archive has no shapes that can be read, only folders, such as that of {labelled}, which are labels of images; the "
            f"dataset has shapes. Use one of the other formats: {_LAYOUTS}"
        )


def check(item: ArchivedItem, layout: ArchiveFormat.ValueType) -> None:
    """Checks that a layout can represent the annotations of an image. Its file is not needed.

    Raises:
        FailedPrecondition: FORMAT_CANNOT_REPRESENT.
    """
    _CHECKS[layout](item)


def pack(
    items: Iterable[ArchivedItem],
    concepts: Mapping[str, Sequence[str]],
    layout: ArchiveFormat.ValueType,
    folder: Path,
) -> Path:
    """Writes an archive of labelled images and returns its path, `<folder>.zip`. Memory does not depend on their number.

    The scores of annotations are not exported, because they are not part of what was accepted.

    Args:
        items: each is written before the next one is requested. Its file name without the suffix is the id of the item.
        concepts: all concepts that the items can have, in a stable order, with the names of their keypoints.

    Raises:
        FailedPrecondition: EXPORT_EMPTY, there are no items; FORMAT_CANNOT_REPRESENT, the layout cannot represent an annotation.
    """
    path = folder.with_suffix(".zip")
    is_empty = True
    with ZipWriter(path) as archive, _writer(archive, concepts, layout, folder.parent) as writer:
        for item in items:
            is_empty = False
            check(item, layout)
            writer.add(item)
        writer.finish()
    if is_empty:
        raise FailedPrecondition("no item is labelled; label items first", reason="EXPORT_EMPTY")
    return path


def _writer(
    archive: ZipWriter, concepts: Mapping[str, Sequence[str]], layout: ArchiveFormat.ValueType, scratch: Path
) -> FolderWriter | CocoWriter | YoloWriter | VocWriter:
    match layout:
        case ArchiveFormat.ARCHIVE_FORMAT_COCO:
            return CocoWriter(archive, list(concepts), concepts, scratch)
        case ArchiveFormat.ARCHIVE_FORMAT_YOLO:
            return YoloWriter(archive, concepts)
        case ArchiveFormat.ARCHIVE_FORMAT_PASCAL_VOC:
            return VocWriter(archive, concepts, scratch)
        case _:
            return FolderWriter(archive)


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
    return bool(parse_split(name)) or name.lower() in _FOLDERS

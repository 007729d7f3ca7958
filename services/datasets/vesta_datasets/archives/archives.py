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
from vesta_datasets.archives.layout import ArchivedItem, UnreadableArchiveError, has_a_meaning
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
_LAYOUTS: Final = (
    "one folder per class (optionally below train, val and test); annotations/ and images/ for COCO; data.yaml, obj.data or classes.txt "
    "beside images and rows for YOLO; Annotations/ and JPEGImages/ for Pascal VOC"
)


class OpenArchive:
    """The images of an archive, whose files may still have to be unpacked.

    Attributes:
        items: ordered by file name. Includes images that the archive's annotation files name but that the archive does not contain.
    """

    def __init__(self, items: Collection[ArchivedItem], unpack_files: Callable[[], None] | None = None) -> None:
        self.items = items
        self._unpack_files = unpack_files

    def unpack_files(self) -> None:
        """Unpacks the files, if they are not there yet.

        Raises:
            UnreadableArchiveError: they cannot be unpacked.
        """
        if self._unpack_files:
            self._unpack_files()
            self._unpack_files = None


def open_archive(
    archive: Path,
    folder: Path,
    layout: ArchiveFormat.ValueType,
    shapes: Collection[str] = ALL_SHAPES,
    timeout: timedelta = TIMEOUT,
) -> OpenArchive:
    """Reads an archive. Class folders are only hashed, because a dataset that has the images needs no files.

    Args:
        archive: the zip file, in a folder that only the caller uses.
        folder: created for the files, in the same folder as the archive.
        layout: unspecified to detect it, for which the files are unpacked.
        shapes: that the importing dataset allows. Of the shapes that the archive has of one object, the first allowed one is returned.
        timeout: of each step: unpacking, reading and hashing.

    Raises:
        UnreadableArchiveError: the file is not a zip archive, is a zip bomb, has entries that lead outside of it, or does not
            have the expected layout.
    """

    def unpack_files() -> None:
        _run("vesta_datasets.archives.unzip:unpack_zip", folder.parent, (archive.name, folder.name), timeout)

    opened = OpenArchive((), unpack_files)
    if layout != ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER:
        opened.unpack_files()
        root = _root_of(folder)
        entries = f"{folder.name}.entries"
        argument = (str(root.relative_to(folder.parent)), entries, layout, tuple(sorted(shapes)))
        layout, count = _run("vesta_datasets.archives.reading:read_archive", folder.parent, argument, timeout)
        opened.items = Entries(folder.parent / entries, root, count)
    if layout == ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER:
        digests = _run("vesta_datasets.archives.unzip:hash_zip", folder.parent, archive.name, timeout)
        opened.items = read_folders(digests, folder)
    if not any(item.sha256 or item.is_there for item in opened.items):
        raise UnreadableArchiveError(f"the archive has no image in the requested format: {_LAYOUTS}")
    if layout == ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER and "image_label" not in shapes:
        _check_unlabelled(opened.items)
    return opened


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
        if len(inside) != 1 or not inside[0].is_dir() or has_a_meaning(inside[0].name):
            return folder
        if not any(entry.is_dir() for entry in inside[0].iterdir()):
            return folder
        folder = inside[0]

"""Archives in the field's formats: unpacked with limits and read, checked and written, one module a layout."""

import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from vesta_common.errors import FailedPrecondition, InvalidArgument
from vesta_common.sandbox import Limits, run_in_folder
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.datasets.v1 import ArchiveFormat

from vesta_datasets.archives.class_folders import read_folders, write_folders
from vesta_datasets.archives.layout import ArchivedItem, CocoImage, UnreadableArchiveError, cannot_hold, side_of

LIMITS = Limits(memory_bytes_max=4 * 1024**3, cpu_seconds_max=15 * 60, file_bytes_max=1024**3)
TIMEOUT = timedelta(minutes=30)
"""Of one step of reading or writing an archive."""


def unpack(
    archive: Path, folder: Path, layout: ArchiveFormat.ValueType, timeout: timedelta = TIMEOUT
) -> list[ArchivedItem]:
    """Unpacks an archive and reads what its images show, in order of their names; also of those that it only names.

    Args:
        archive: in a folder of the caller's own.
        folder: to be made for the files, beside it.
        timeout: of unpacking and of reading.

    Raises:
        UnreadableArchiveError: it is no zip archive, is a bomb, reaches outside itself, or is not laid out as expected.
    """
    _run("vesta_datasets.archives.unzip:unpack_zip", folder.parent, (archive.name, folder.name), timeout)
    return read_unpacked(folder, layout, timeout)


def read_unpacked(folder: Path, layout: ArchiveFormat.ValueType, timeout: timedelta = TIMEOUT) -> list[ArchivedItem]:
    """What the images of an unpacked archive show; see `unpack`.

    Raises:
        UnreadableArchiveError: it is not laid out as expected.
    """
    root = _root_of(folder)
    found = read_folders(root) if layout == ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER else _read_coco(root, timeout)
    if not any(item.is_there for item in found):
        raise UnreadableArchiveError(
            "the archive holds no image in the layout asked for: a folder a class (with train, val, test above, if at all), "
            "or COCO's annotations/ and images/"
        )
    return found


def pack(items: Sequence[ArchivedItem], concepts: Sequence[str], layout: ArchiveFormat.ValueType, folder: Path) -> Path:
    """Writes an archive of labelled images; answers where it lies.

    Args:
        concepts: all that the items may bear, in an order that stays.

    Raises:
        FailedPrecondition: EXPORT_EMPTY, there are none; LAYOUT_CANNOT_HOLD, something of an item would be lost or become
            something else. How sure the maker of an annotation was is no part of what was accepted, and stays behind.
    """
    if not items:
        raise FailedPrecondition("nothing is labelled yet; label some items first", reason="EXPORT_EMPTY")
    for item in items:
        _check_attributes(item)
    if layout == ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER:
        write_folders(items, folder)
    else:
        _write_coco(items, concepts, folder)
    return Path(shutil.make_archive(str(folder), "zip", folder))


def _read_coco(root: Path, timeout: timedelta) -> list[ArchivedItem]:
    found: list[CocoImage] = _run("vesta_datasets.archives.coco:read_coco", root, None, timeout)
    items = []
    for image in found:
        path = (root / image.path).resolve()
        if not path.is_relative_to(root.resolve()):
            raise UnreadableArchiveError(f"the archive names {image.path!r}, which lies outside of it")
        annotations = None if image.annotations is None else [*map(Annotation.FromString, image.annotations)]
        items.append(ArchivedItem(image.path, path, image.split, annotations))
    return items


def _write_coco(items: Sequence[ArchivedItem], concepts: Sequence[str], folder: Path) -> None:
    for item in items:
        _check_for_coco(item)
    images = [
        CocoImage(
            str(item.path.relative_to(folder.parent)),
            item.split.lower() or "train",
            [one.SerializeToString() for one in item.annotations or ()],
            item.height_px,
            item.width_px,
        )
        for item in items
    ]
    _run("vesta_datasets.archives.coco:write_coco", folder.parent, (images, list(concepts), folder.name), TIMEOUT)


def _run(function: str, folder: Path, argument: Any, timeout: timedelta) -> Any:
    """What a function answers from a child that sees the folder alone.

    Raises:
        UnreadableArchiveError: it says so, or took more memory or time than it may.
    """
    try:
        return run_in_folder(function, folder, argument, LIMITS, timeout)
    except InvalidArgument as error:
        if error.reason != "IMAGE_TOO_COSTLY":
            raise
        raise UnreadableArchiveError(
            "the archive takes more memory or time than one may; split it into smaller ones"
        ) from error


def _check_attributes(item: ArchivedItem) -> None:
    """Refuses what none of the layouts has a place for."""
    for annotation in item.annotations or ():
        if annotation.attributes:
            raise cannot_hold(
                item, f"an annotation with the attribute {min(annotation.attributes)!r}", "none holds attributes"
            )


def _check_for_coco(item: ArchivedItem) -> None:
    """Refuses what COCO has no place for."""
    holds = "COCO holds image labels, boxes, masks and polygons without holes"
    for annotation in item.annotations or ():
        shape = str(annotation.WhichOneof("shape"))
        if shape not in {"image_label", "box", "mask", "polygon"}:
            raise cannot_hold(item, f"a {shape.replace('_', ' ')}", holds)
        if annotation.polygon.holes:
            raise cannot_hold(item, "a polygon with holes", holds)
        if shape == "mask" and not any(annotation.mask.runs_px[1::2]):
            raise cannot_hold(item, "a mask without pixels", holds)


def _root_of(folder: Path) -> Path:
    """The folder within an archive that wraps everything in one more, as many tools do."""
    while True:
        inside = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
        if len(inside) != 1 or not inside[0].is_dir() or _has_a_meaning(inside[0].name):
            return folder
        if not any(entry.is_dir() for entry in inside[0].iterdir()):
            return folder
        folder = inside[0]


def _has_a_meaning(name: str) -> bool:
    return bool(side_of(name)) or name.lower() in {"annotations", "images"}

"""Archives in the field's formats: unpacked with limits and read, checked and written, one module a layout."""

import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from vesta_common.errors import FailedPrecondition
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.datasets.v1 import ArchiveFormat

from vesta_datasets.archived import ArchivedItem, UnreadableArchiveError, cannot_hold, side_of
from vesta_datasets.folders import read_folders, write_folders
from vesta_datasets.isolated import run_isolated

ENTRIES_MAX = 2_000_000
UNPACKED_BYTES_MAX = 64 * 1024**3
RATIO_MAX = 200
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, LookupError, OSError, RuntimeError, UnicodeError),
)
"""What `zipfile` raises at damaged archives, depending on where they are damaged."""


def unpack(archive: Path, folder: Path, layout: ArchiveFormat.ValueType) -> list[ArchivedItem]:
    """Unpacks an archive and reads what its images show, in order of their names; also of those that it only names.

    Raises:
        UnreadableArchiveError: it is no zip archive, is a bomb, reaches outside itself, or is not laid out as expected.
    """
    _extract(archive, folder)
    root = _root_of(folder)
    found = read_folders(root) if layout == ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER else _read_coco(root)
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


def _read_coco(root: Path) -> list[ArchivedItem]:
    items = []
    for name, split, told in run_isolated("vesta_datasets.coco:read_coco", str(root)):
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()):
            raise UnreadableArchiveError(f"the archive names {name!r}, which lies outside of it")
        annotations = None if told is None else [Annotation.FromString(bytes.fromhex(one)) for one in told]
        items.append(ArchivedItem(name, path, split, annotations))
    return items


def _write_coco(items: Sequence[ArchivedItem], concepts: Sequence[str], folder: Path) -> None:
    for item in items:
        _check_for_coco(item)
    rows = [
        (
            str(item.path),
            item.split.lower() or "train",
            [one.SerializeToString().hex() for one in item.annotations or ()],
            item.height_px,
            item.width_px,
        )
        for item in items
    ]
    run_isolated("vesta_datasets.coco:write_coco", rows, list(concepts), str(folder))


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


def _extract(archive: Path, folder: Path) -> None:
    """Unpacks within limits; links and paths that lead outside are refused."""
    folder.mkdir()
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            size = sum(entry.file_size for entry in entries)
            packed = sum(entry.compress_size for entry in entries) or 1
            if len(entries) > ENTRIES_MAX or size > UNPACKED_BYTES_MAX or size / packed > RATIO_MAX:
                raise UnreadableArchiveError(
                    f"the archive would unpack to {size} bytes in {len(entries)} files, which is more than is allowed"
                )
            for entry in entries:
                target = (folder / entry.filename).resolve()
                if not target.is_relative_to(folder.resolve()) or stat.S_ISLNK(entry.external_attr >> 16):
                    raise UnreadableArchiveError(f"the archive's entry {entry.filename!r} leads outside of it")
            opened.extractall(folder)
    except _DAMAGED as error:
        raise UnreadableArchiveError(f"the archive cannot be unpacked: {error}") from error


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

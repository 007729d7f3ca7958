"""Types and errors that all archive layouts share."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import IO, Final

from vesta_common.errors import FailedPrecondition, InvalidArgument
from vesta_contracts.common.v1 import Annotation

_CHUNK_BYTES: Final = 256 * 1024
_SPLITS: Final = {
    "train": "TRAIN",
    "training": "TRAIN",
    "val": "VALIDATION",
    "valid": "VALIDATION",
    "validation": "VALIDATION",
    "test": "TEST",
}
_FOLDERS: Final = {"annotations", "images", "labels", "jpegimages", "imagesets"}
"""Names of folders that have a meaning, in lower case."""


class UnreadableArchiveError(InvalidArgument):
    """The archive cannot be read. The message gives the reason and the expected layout."""

    default_reason = "ARCHIVE_UNREADABLE"


@dataclass(frozen=True)
class ArchivedItem:
    """An image of an archive.

    Attributes:
        file_name: its path in the archive.
        path: of the unpacked file.
        split: TRAIN, VALIDATION or TEST; empty if the archive does not specify it.
        annotations: None if the archive has no annotations of the image; empty for "none of the concepts".
        width_px, height_px: 0 if the archive does not state them.
        sha256: of the file, if the reader of the layout has computed it.
        flaw: why the image cannot be imported, as the end of a sentence that begins with its name; empty if it can.
        is_normalized: whether coordinates are shares of width and height instead of pixels.
        has_rotated_boxes: whether polygons are the corners of rotated boxes.
    """

    file_name: str
    path: Path
    split: str
    annotations: Sequence[Annotation] | None
    width_px: int = 0
    height_px: int = 0
    sha256: str = ""
    flaw: str = ""
    is_normalized: bool = False
    has_rotated_boxes: bool = False

    @property
    def is_there(self) -> bool:
        """Whether the archive contains the image file, rather than only its name."""
        return self.path.is_file()


IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
TRUE: Final = "true"
"""The value of attributes that are flags."""
ROTATION: Final = "rotation"
"""The attribute of a COCO object, a number of degrees, by which its box is rotated about its centre, as CVAT writes it."""
ABSENT_KEYPOINTS: Final = "absent_keypoints"
"""A field of COCO objects that only this service writes: the names of keypoints outside of the image, unlike missing ones."""
VOC_FLAGS: Final = ("truncated", "difficult", "occluded")
"""Elements of an object in Pascal VOC that become attributes if they are 1."""


def image_files(folder: Path) -> list[Path]:
    """Returns the files below a folder that have the suffix of an image and are not hidden, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.relative_to(folder)) and path.is_file()
    )


def parse_split(name: str) -> str:
    """Returns TRAIN, VALIDATION or TEST for the name of a folder or subset, such as `val` or `train2017`; empty for other names."""
    return _SPLITS.get(name.lower().rpartition("_")[2].rstrip("0123456789"), "")


def has_a_meaning(name: str) -> bool:
    """Whether a folder of this name is part of a layout, rather than one that wraps the content of an archive."""
    return bool(parse_split(name)) or name.lower() in _FOLDERS


def is_hidden(path: Path) -> bool:
    """Whether a file is hidden, or created by an operating system."""
    return any(map(is_hidden_name, path.parts))


def is_hidden_name(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or created by an operating system."""
    return name.startswith(".") or name == "__MACOSX"


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, hexadecimal."""
    with path.open("rb", buffering=0) as file:
        return sha256_in(file)


def sha256_in(file: RawIOBase | IO[bytes]) -> str:
    """Returns the SHA-256 of the rest of an open file, hexadecimal."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):  # faster than hashlib.file_digest for small files
        digest.update(chunk)
    return digest.hexdigest()


def cannot_hold(item: ArchivedItem, what: str, holds: str) -> FailedPrecondition:
    """Creates the error for an annotation that the layout of an export cannot represent.

    Args:
        what: the annotation.
        holds: what the layout can represent, or a layout that can represent the annotation.
    """
    return FailedPrecondition(
        f"item {item.path.stem} has {what}, which this format cannot represent; {holds}. The "
        "manifest of a snapshot contains all annotations",
        reason="FORMAT_CANNOT_REPRESENT",
    )

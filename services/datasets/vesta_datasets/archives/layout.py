"""What an archive's layouts have in common: an image with what it shows, and what is wrong with an archive."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vesta_common.errors import FailedPrecondition, InvalidArgument
from vesta_contracts.common.v1 import Annotation

_SIDES: Final = {
    "train": "TRAIN",
    "training": "TRAIN",
    "val": "VALIDATION",
    "valid": "VALIDATION",
    "validation": "VALIDATION",
    "test": "TEST",
}


class UnreadableArchiveError(InvalidArgument):
    """The archive cannot be read; the message says why and what is expected."""

    default_reason = "ARCHIVE_UNREADABLE"


@dataclass(frozen=True)
class ArchivedItem:
    """An image of an archive.

    Attributes:
        file_name: its path in the archive.
        path: where it lies unpacked.
        split: TRAIN, VALIDATION or TEST; empty where the archive does not say.
        annotations: None where it does not say, or not wholly, what the image shows; empty for "none of the concepts".
    """

    file_name: str
    path: Path
    split: str
    annotations: Sequence[Annotation] | None
    width_px: int = 0
    height_px: int = 0

    @property
    def is_there(self) -> bool:
        """Whether the archive holds the image, and does not just name it."""
        return self.path.is_file()


@dataclass(frozen=True)
class CocoImage:
    """An image of a COCO archive, as it goes to and comes from the process that reads and writes them.

    Attributes:
        path: below the archive's root.
        split: its side; empty where the archive does not say.
        annotations: serialised; None where they do not wholly say what the image shows.
        height_px: 0 where nobody asks.
    """

    path: str
    split: str
    annotations: list[bytes] | None
    height_px: int = 0
    width_px: int = 0


def side_of(name: str) -> str:
    """TRAIN, VALIDATION or TEST by what folders and subsets are called, such as `val` or `train2017`; empty for other names."""
    return _SIDES.get(name.lower().rpartition("_")[2].rstrip("0123456789"), "")


def is_hidden(path: Path) -> bool:
    """Whether a file is what operating systems put beside the files of people."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def cannot_hold(item: ArchivedItem, what: str, holds: str) -> FailedPrecondition:
    """The error of an export whose layout has no place for something.

    Args:
        what: what the item has.
        holds: what the layout holds, or which one would work.
    """
    return FailedPrecondition(
        f"item {item.path.stem} has {what}, which this layout cannot hold; {holds}, and a snapshot's manifest holds everything",
        reason="LAYOUT_CANNOT_HOLD",
    )

"""Which side an item is on: dealt by content, kept for ever, and never straddled by near-duplicates.

Items fall into groups: an item that nearly repeats an older one joins its group, any other founds its own. A group has
one side. So a model is never tested on a picture of which it has learnt a copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from vesta_contracts.datasets.v1 import Dataset

TEST_SHARE_DEFAULT = 0.2
"""Of a dataset that does not say: without test items nobody could tell how good a model is, or which of two is better."""


class Split(StrEnum):
    """A side of a split; the value is what manifests bear."""

    TRAIN = "TRAIN"
    VALIDATION = "VALIDATION"
    TEST = "TEST"


@dataclass(frozen=True, slots=True)
class Shares:
    """How much of a dataset goes to validation and test; the rest is for training.

    Raises:
        ValueError: a share is below 0, or both together reach 1.
    """

    validation: float
    test: float

    @classmethod
    def of(cls, dataset: Dataset) -> "Shares":
        """Those of a dataset's policy."""
        return cls(dataset.split_policy.validation_share, dataset.split_policy.test_share)

    def __post_init__(self) -> None:
        if not (self.validation >= 0.0 and self.test >= 0.0 and self.validation + self.test < 1.0):
            raise ValueError(
                f"validation ({self.validation}) and test ({self.test}) must be at least 0 and together below 1"
            )


@dataclass(frozen=True, slots=True)
class Placed:
    """An older item that the new one nearly repeats: its name, its group's name and side."""

    name: str
    group: str
    split: Split


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a new item goes.

    Args:
        split: its side, for ever.
        group: name of its group, which is the name of the item that founded it.
        duplicate_of: the older item that it repeats most nearly; None if it founds a group.
        straddles: it nearly repeats items on two sides, which no placement can mend. It is kept and shown, but bears no
            part in selection and snapshots.
    """

    split: Split
    group: str
    duplicate_of: str | None = None
    straddles: bool = False


def split_of(sha256: str, shares: Shares) -> Split:
    """The side that a content hash deals: the same picture has the same side in every dataset of equal shares.

    Args:
        sha256: of the stored bytes of the group's founder, hexadecimal.
    """
    position = int(sha256[:16], 16) / 2**64
    if position < shares.test:
        return Split.TEST
    if position < shares.test + shares.validation:
        return Split.VALIDATION
    return Split.TRAIN


def place(
    name: str, sha256: str, duplicates: Sequence[Placed], shares: Shares, asked: Split | None = None
) -> Placement:
    """Places a new item; items placed before never move.

    Args:
        name: of the new item.
        sha256: of its stored bytes.
        duplicates: all older items that it nearly repeats, nearest first.
        shares: the dataset's.
        asked: a side that the import asks for. Honoured unless the item's group is on another already.
    """
    if not duplicates:
        return Placement(split=asked or split_of(sha256, shares), group=name)
    nearest = duplicates[0]
    return Placement(
        split=nearest.split,
        group=nearest.group,
        duplicate_of=nearest.name,
        straddles=any(duplicate.split != nearest.split for duplicate in duplicates),
    )

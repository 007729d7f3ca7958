"""Assigns items to splits: by content hash, permanently, and with near-duplicates in the same split.

Every item belongs to a group. A near-duplicate of an older item joins the group of that item; any other item starts a new
group. All items of a group are in the same split, so that a model is never tested on a near-duplicate of a training image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from vesta_contracts.datasets.v1 import Dataset

TEST_SHARE_DEFAULT = 0.2
"""Test share of a dataset whose policy has none. Without test items, models cannot be evaluated or compared."""


class Split(StrEnum):
    """A split of a dataset. Manifests contain these values."""

    TRAIN = "TRAIN"
    VALIDATION = "VALIDATION"
    TEST = "TEST"


@dataclass(frozen=True, slots=True)
class Shares:
    """The shares of the validation and test splits, in `[0, 1)`. The rest is the training split.

    Raises:
        ValueError: a share is below 0, or their sum is 1 or more.
    """

    validation: float
    test: float

    @classmethod
    def of(cls, dataset: Dataset) -> "Shares":
        """Returns the shares of the split policy of a dataset."""
        return cls(dataset.split_policy.validation_share, dataset.split_policy.test_share)

    def __post_init__(self) -> None:
        if not (self.validation >= 0.0 and self.test >= 0.0 and self.validation + self.test < 1.0):
            raise ValueError(
                f"validation ({self.validation}) and test ({self.test}) must be at least 0 and together below 1"
            )


@dataclass(frozen=True, slots=True)
class Placed:
    """An older item that has been assigned to a split: its name, and the name and split of its group."""

    name: str
    group: str
    split: Split


@dataclass(frozen=True, slots=True)
class Placement:
    """The split and the group of a new item.

    Args:
        split: permanent.
        group: name of the group, which is the name of its first item.
        duplicate_of: the older item that is its nearest near-duplicate; None if the item starts a group.
        straddles: the item is a near-duplicate of items in different splits, so that no split is right for it. It is stored
            and shown, but excluded from selection and snapshots.
    """

    split: Split
    group: str
    duplicate_of: str | None = None
    straddles: bool = False


def split_of(sha256: str, shares: Shares) -> Split:
    """Returns the split for a content hash. The same image has the same split in all datasets with the same shares.

    Args:
        sha256: of the stored bytes of the group's first item, hexadecimal.
    """
    position = int(sha256[:16], 16) / 2**64
    if position < shares.test:
        return Split.TEST
    if position < shares.test + shares.validation:
        return Split.VALIDATION
    return Split.TRAIN


def place(
    name: str, sha256: str, duplicates: Sequence[Placed], shares: Shares, requested: Split | None = None
) -> Placement:
    """Assigns a new item to a split and a group. Existing items never change their split.

    Args:
        name: of the new item.
        sha256: of its stored bytes.
        duplicates: all older items that are near-duplicates, nearest first.
        shares: of the dataset.
        requested: the split that the caller requests. Ignored if the item joins an existing group.
    """
    if not duplicates:
        return Placement(split=requested or split_of(sha256, shares), group=name)
    nearest = duplicates[0]
    return Placement(
        split=nearest.split,
        group=nearest.group,
        duplicate_of=nearest.name,
        straddles=any(duplicate.split != nearest.split for duplicate in duplicates),
    )

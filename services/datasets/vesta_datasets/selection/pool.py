"""The interface of all selection strategies: their input, the pool, and their output, the picks."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vesta_datasets.task_types.uncertainty import Mask, Uncertainty

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

NORM_TOLERANCE = 1e-2


class UnusablePoolError(ValueError):
    """The arrays of the pool have different lengths, or contain invalid values."""


class Reason(StrEnum):
    """Why an item was picked. The value is shown to users."""

    RANDOM = "drawn at random"
    CONTROL = "drawn at random by the control arm"
    UNCERTAIN = "another answer is nearly as likely as the predicted one"
    CONFUSED = "many answers are likely"
    FAR = "dissimilar to all labelled images"
    TYPICAL = "similar to many unlabelled images"
    UNCERTAIN_AND_TYPICAL = "uncertain, and similar to many uncertain images"
    INSTRUCTIVE_AND_TYPICAL = (
        "shows objects of which the model needs more, among few others, and is similar to many such images"
    )


@dataclass(frozen=True, slots=True)
class Pick:
    """A picked item.

    Attributes:
        index: its row in the pool.
        score: higher is more informative. Scores of different strategies are not comparable.
        reason: why the item was picked.
    """

    index: int
    score: float
    reason: Reason


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """All items that a strategy can use, labelled or not.

    Args:
        embeddings: `(N, D)` float32, rows of unit length.
        uncertainty: of the model about each item. None before the first model.
        labelled: `(N,)`, True for items that are labelled or in a task already. They are never picked, and items near them
            count as covered.
        batch_size: number of picks, at least 0.
        seed: of all random draws of a strategy.
        typical_start: whether the default strategy picks typical items before the first model, and otherwise random ones.

    Raises:
        UnusablePoolError: shapes differ, a value is not finite or outside of its range, or a row is not of unit length.
    """

    embeddings: Floats
    uncertainty: Uncertainty | None
    labelled: Mask
    batch_size: int
    seed: int = 0
    typical_start: bool = True

    def __post_init__(self) -> None:
        count = _check_embeddings(self.embeddings)
        if self.labelled.shape != (count,) or self.labelled.dtype != np.bool_:
            raise UnusablePoolError(
                f"labelled must be booleans of shape ({count},), not {self.labelled.shape} {self.labelled.dtype}"
            )
        if self.uncertainty is not None:
            _check_uncertainty(self.uncertainty, count)
        if self.batch_size < 0:
            raise UnusablePoolError(f"batch_size must be at least 0, not {self.batch_size}")
        if self.seed < 0:
            raise UnusablePoolError(f"seed must be at least 0, not {self.seed}")

    @property
    def free(self) -> Indices:
        """`(F,)` rows that can be picked, in ascending order."""
        return np.flatnonzero(~self.labelled)

    @property
    def pick_count(self) -> int:
        """The number of picks that a strategy must return: the batch size, or all unlabelled items if they are fewer."""
        return min(self.batch_size, int(np.count_nonzero(~self.labelled)))


class Strategy(Protocol):
    """A selection strategy. Pure, and deterministic for a pool."""

    def __call__(self, pool: Pool, /) -> list[Pick]:
        """Returns `pool.pick_count` distinct, unlabelled picks in order of priority."""
        ...


def _check_embeddings(embeddings: Floats) -> int:
    if embeddings.ndim != 2:
        raise UnusablePoolError(f"embeddings must be (N, D), not {embeddings.shape}")
    if not np.isfinite(embeddings).all():
        raise UnusablePoolError("embeddings must be finite: embed the items again")
    lengths = np.linalg.norm(embeddings, axis=1)
    if embeddings.shape[0] and np.abs(lengths - 1.0).max() > NORM_TOLERANCE:
        raise UnusablePoolError("embeddings must have unit length: divide each row by its norm")
    return int(embeddings.shape[0])


def _check_uncertainty(uncertainty: Uncertainty, count: int) -> None:
    for kind, values in (
        ("margin", uncertainty.margin),
        ("entropy", uncertainty.entropy),
        ("worth", uncertainty.worth),
    ):
        if values.shape != (count,):
            raise UnusablePoolError(f"uncertainty.{kind} must be ({count},), not {values.shape}")
        if not np.isfinite(values).all():
            raise UnusablePoolError(f"uncertainty.{kind} must be finite: score the items again")
        if count and (values.min() < 0.0 or values.max() > 1.0):
            raise UnusablePoolError(f"uncertainty.{kind} must lie in [0, 1]")

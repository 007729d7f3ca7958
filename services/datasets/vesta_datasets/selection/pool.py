"""What a selection strategy is given and what it answers: the one interface of all strategies."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]

NORM_TOLERANCE = 1e-2
SUM_TOLERANCE = 1e-2


class UnusablePoolError(ValueError):
    """The pool's arrays do not fit together, or hold values that no model should give."""


class Reason(StrEnum):
    """Why an item was chosen; the value is what people read."""

    RANDOM = "drawn at random"
    CONTROL = "drawn at random by the control arm"
    UNCERTAIN = "the model wavers between its two best answers"
    CONFUSED = "the model spreads its answer over many concepts"
    FAR = "unlike everything labelled so far"
    TYPICAL = "typical of many images that nobody has labelled"
    UNCERTAIN_AND_TYPICAL = "the model is unsure here and of many images like it"


@dataclass(frozen=True, slots=True)
class Pick:
    """One chosen item.

    `index` is its row in the pool. `score` is the strategy's own figure, higher is more informative; figures of
    different strategies cannot be compared.
    """

    index: int
    score: float
    reason: Reason


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Every item that a strategy may look at, labelled or not.

    Args:
        embeddings: `(N, D)` float32, rows of unit length.
        probabilities: `(N, C)` float32 in `[0, 1]`, the model's calibrated answers; rows add to 1 unless `multi_label`.
            None before the first model.
        labelled: `(N,)`, True for items that are labelled or on their way to the experts. They are never chosen again,
            and what lies near them counts as covered.
        batch_size: how many to choose, at least 0.
        seed: where a strategy draws, it draws from this.
        multi_label: each concept is its own question, and its probability is centred: one half where the model is at the
            threshold from which it predicts the concept.

    Raises:
        UnusablePoolError: shapes differ, a value is not finite, a row has not unit length, an answer is no probability.
    """

    embeddings: Floats
    probabilities: Floats | None
    labelled: Mask
    batch_size: int
    seed: int = 0
    multi_label: bool = False

    def __post_init__(self) -> None:
        count = _check_embeddings(self.embeddings)
        if self.labelled.shape != (count,) or self.labelled.dtype != np.bool_:
            raise UnusablePoolError(
                f"labelled must be ({count},) booleans, not {self.labelled.shape} {self.labelled.dtype}"
            )
        if self.probabilities is not None:
            _check_probabilities(self.probabilities, count, self.multi_label)
        if self.batch_size < 0:
            raise UnusablePoolError(f"batch_size must be at least 0, not {self.batch_size}")
        if self.seed < 0:
            raise UnusablePoolError(f"seed must be at least 0, not {self.seed}")

    @property
    def free(self) -> Indices:
        """`(F,)` rows that may be chosen, in rising order."""
        return np.flatnonzero(~self.labelled)

    @property
    def pick_count(self) -> int:
        """How many picks a strategy owes: the batch, or all that is left."""
        return min(self.batch_size, int(np.count_nonzero(~self.labelled)))


class Strategy(Protocol):
    """A way to choose. Pure, and deterministic for a pool."""

    def __call__(self, pool: Pool, /) -> list[Pick]:
        """`pool.pick_count` picks in order of priority: distinct, none labelled."""
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


def _check_probabilities(probabilities: Floats, count: int, multi_label: bool) -> None:
    if probabilities.ndim != 2 or probabilities.shape[0] != count or probabilities.shape[1] == 0:
        raise UnusablePoolError(f"probabilities must be ({count}, C) with C at least 1, not {probabilities.shape}")
    if not np.isfinite(probabilities).all():
        raise UnusablePoolError("probabilities must be finite: score the items again")
    if count and (probabilities.min() < 0.0 or probabilities.max() > 1.0 + SUM_TOLERANCE):
        raise UnusablePoolError("probabilities must lie in [0, 1]")
    if count and not multi_label and np.abs(probabilities.sum(axis=1) - 1.0).max() > SUM_TOLERANCE:
        raise UnusablePoolError(
            "probabilities of a single-label model must add to 1: say multi_label if they are independent"
        )

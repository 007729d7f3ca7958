"""The candidates of a selection, as the store reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.common.v1 import Prediction


@dataclass(frozen=True)
class PoolRow:
    """An item of the pool.

    Attributes:
        held: the item is labelled, or it is in a task already. It is never picked, and items near it count as covered.
        answer: the concepts of its accepted annotations, each as often as it occurs; None if it is not labelled, or if they are stored
            apart.
    """

    name: str
    held: bool
    prediction: Prediction | None
    answer: Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class Candidates:
    """The items that a selection reads.

    Attributes:
        rows: ordered by name.
        embeddings: `(N, D)`, one line per row; 0 for rows without an embedding.
        embedded: `(N,)`, whether the row has an embedding.
        free_count: the number of items that can be picked in the whole dataset, including those that are not in `rows`.
    """

    rows: Sequence[PoolRow]
    embeddings: NDArray[np.float32]
    embedded: NDArray[np.bool_]
    free_count: int

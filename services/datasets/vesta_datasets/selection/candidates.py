"""What selection chooses from, as the store reads it. Values alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.common.v1 import ImageScores


@dataclass(frozen=True)
class PoolRow:
    """An item as selection sees it.

    Attributes:
        held: labelled or on its way to the experts: never chosen, and what lies near it counts as covered.
    """

    name: str
    held: bool
    scores: ImageScores | None


@dataclass(frozen=True, eq=False)
class Candidates:
    """What selection chooses from.

    Attributes:
        rows: in order of their names.
        embeddings: `(N, D)`, a line a row.
        embedded: `(N,)`, whether the row has an embedding; its line is 0 where it has none.
        free_count: how many items there are to choose from, whether they are in `rows` or not.
    """

    rows: Sequence[PoolRow]
    embeddings: NDArray[np.float32]
    embedded: NDArray[np.bool_]
    free_count: int

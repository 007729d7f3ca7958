"""Which true objects were found: the objects of two sets of annotations, matched by their overlap."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from vesta_contracts.common.v1 import Annotation

IOU_MIN = 0.5
"""Two shapes of one object overlap with at least this intersection over union."""


def pairs(
    truth: Sequence[Annotation],
    found: Sequence[Annotation],
    overlap: NDArray[np.float64],
    *,
    same_concept: bool = True,
) -> list[tuple[int, int]]:
    """Returns as many pairs as possible of a true and a found object with an IoU of `IOU_MIN` or more.

    Args:
        overlap: `(N, M)` intersections over unions of the true and the found objects.
        same_concept: only objects of one concept are paired.
    """
    if not truth or not found:
        return []
    same = np.array([[a.concept == b.concept for b in found] for a in truth])
    fits = (same | (not same_concept)) & (overlap >= IOU_MIN)
    rows, columns = linear_sum_assignment(np.where(fits, 1 + overlap / (1 + overlap.size), 0), maximize=True)
    return [(row, column) for row, column in zip(rows.tolist(), columns.tolist(), strict=True) if fits[row, column]]

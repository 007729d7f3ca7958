"""Overlap of boxes. Pure."""

import numpy as np
from numpy.typing import NDArray


def overlaps(boxes_xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns `(N, N)`, the intersection over union of each pair of boxes, in [0, 1].

    Args:
        boxes_xyxy: `(N, 4)` with areas greater than 0.
    """
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    sides = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    shared = np.maximum(sides, 0.0).prod(2)
    areas = (high - low).prod(1)
    return np.asarray(shared / (areas[:, None] + areas - shared), np.float64)

"""Corners of box annotations, and the intersection over union (IoU) of boxes. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.common.v1 import Annotation

Boxes = NDArray[np.float64]
"""`(..., 4)`: x_min, y_min, x_max, y_max in pixels."""


def corners(annotations: Sequence[Annotation]) -> Boxes:
    """Returns the corners of box annotations, `(N, 4)`."""
    rows = [(a.box.x_min_px, a.box.y_min_px, a.box.x_max_px, a.box.y_max_px) for a in annotations]
    return np.array(rows, np.float64).reshape(-1, 4)


def box_iou(one: Boxes, other: Boxes) -> NDArray[np.float64]:
    """Returns the intersections over unions of pairs of boxes in [0, 1], of the broadcast shape without the last axis; 0 if empty."""
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    common = np.clip(sides, 0, None).prod(axis=-1)
    union = (one[..., 2:] - one[..., :2]).prod(axis=-1) + (other[..., 2:] - other[..., :2]).prod(axis=-1) - common
    shares: NDArray[np.float64] = np.divide(common, union, out=np.zeros_like(union), where=union > 0)
    return shares


def box_shares(one: Boxes, other: Boxes) -> NDArray[np.float64]:
    """Returns `(N, M)` shares of the areas of `(N, 4)` boxes that lie in `(M, 4)` others; 0 of a box without area."""
    sides = np.minimum(one[:, None, 2:], other[None, :, 2:]) - np.maximum(one[:, None, :2], other[None, :, :2])
    common = np.clip(sides, 0, None).prod(axis=-1)
    areas = np.broadcast_to((one[:, 2:] - one[:, :2]).prod(axis=-1)[:, None], common.shape)
    shares: NDArray[np.float64] = np.divide(common, areas, out=np.zeros_like(common), where=areas > 0)
    return shares


def box_ious(one: Boxes, other: Boxes) -> NDArray[np.float64]:
    """Returns `(N, M)` intersections over unions of `(N, 4)` and `(M, 4)` boxes."""
    return box_iou(one[:, None], other[None])

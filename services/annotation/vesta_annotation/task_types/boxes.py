"""Boxes of one object: their similarity is the intersection over union (IoU), and they are merged by the median of each coordinate."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.common.v1 import Annotation, PixelBox

from vesta_annotation.task_types.matching import Extents, Indices, Shapes


class Boxes(Shapes):
    """Axis-aligned boxes."""

    def __init__(self, annotations: Sequence[Annotation]) -> None:
        self.extents = corners(annotations)

    def similarities(self, own: Indices, other: "Boxes", others: Indices) -> NDArray[np.float64]:
        return iou(self.extents[own], other.extents[others])


def iou(one: Extents, other: Extents) -> NDArray[np.float64]:
    """Returns the intersections over unions of P pairs of boxes, `(P,)`; 0 if both are empty."""
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    intersection = np.clip(sides, 0, None).prod(axis=1)
    union = _areas(one) + _areas(other) - intersection
    shares: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return shares


def corners(boxes: Sequence[Annotation]) -> Extents:
    """Returns the corners of box annotations."""
    rows = [(a.box.x_min_px, a.box.y_min_px, a.box.x_max_px, a.box.y_max_px) for a in boxes]
    return np.array(rows, np.float64).reshape(-1, 4)


def median_box(boxes: Sequence[Annotation]) -> Annotation:
    """Returns the box with the median of each coordinate."""
    x_min, y_min, x_max, y_max = np.median(corners(boxes), axis=0).tolist()
    return Annotation(box=PixelBox(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max))


def _areas(boxes: Extents) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return areas

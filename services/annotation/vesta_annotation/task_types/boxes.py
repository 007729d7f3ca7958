"""Boxes of one object: their similarity is the intersection over union (IoU), and they are merged by the median of each coordinate."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_common.media.boxes import box_iou, corners
from vesta_contracts.common.v1 import Annotation, PixelBox

from vesta_annotation.task_types.matching import Indices, Shapes


class Boxes(Shapes):
    """Axis-aligned boxes."""

    def __init__(self, annotations: Sequence[Annotation]) -> None:
        self.extents = corners(annotations)

    def similarities(self, own: Indices, other: "Boxes", others: Indices) -> NDArray[np.float64]:
        return box_iou(self.extents[own], other.extents[others])


def median_box(boxes: Sequence[Annotation]) -> Annotation:
    """Returns the box with the median of each coordinate."""
    x_min, y_min, x_max, y_max = np.median(corners(boxes), axis=0).tolist()
    return Annotation(box=PixelBox(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max))

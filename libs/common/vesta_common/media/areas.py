"""The pixels of polygon, rotated box and mask annotations, and their intersection over union (IoU). Pure.

Polygons and rotated boxes are compared by the pixels whose centres they contain, so that they can be compared with masks.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.common.v1 import Annotation

from vesta_common.media.box_masks import mask_ious, mask_shares
from vesta_common.media.mask_runs import Edges, edges_of, rasterised
from vesta_common.media.rotated_boxes import polygon_of


def area_ious(one: Sequence[Annotation], other: Sequence[Annotation]) -> NDArray[np.float64]:
    """Returns `(N, M)` intersections over unions of N and M polygons, rotated boxes and masks of one image; 0 where either has no pixel."""
    return mask_ious(*_pixels_of_both(one, other))


def area_shares(one: Sequence[Annotation], other: Sequence[Annotation]) -> NDArray[np.float64]:
    """Returns `(N, M)` shares of the pixels of N polygons, rotated boxes and masks that lie in M others of one image."""
    return mask_shares(*_pixels_of_both(one, other))


def pixels_of(area: Annotation, height_px: int, width_px: int) -> Edges:
    """Returns the pixels of a polygon, rotated box or mask in an image of this size."""
    return edges_of(area.mask) if area.HasField("mask") else rasterised(polygon_of(area), height_px, width_px)


def _pixels_of_both(one: Sequence[Annotation], other: Sequence[Annotation]) -> tuple[list[Edges], list[Edges]]:
    height_px, width_px = _frame((*one, *other))
    return [pixels_of(area, height_px, width_px) for area in one], [
        pixels_of(area, height_px, width_px) for area in other
    ]


def _frame(areas: Sequence[Annotation]) -> tuple[int, int]:
    """Returns height and width of the image that masks state; without masks, those of an image that contains all polygons."""
    for area in areas:
        if area.HasField("mask"):
            return area.mask.height_px, area.mask.width_px
    points = [point for area in areas for point in polygon_of(area).outline.points]
    height, width = (max([getattr(point, axis) for point in points], default=0) for axis in ("y_px", "x_px"))
    return ceil(height), ceil(width)

"""Areas of one object, as boxes, rotated boxes, polygons or masks: their similarity is the intersection over union (IoU).

Outlines are compared exactly; an outline and a mask are compared by the pixels whose centres the outline contains.
"""

import math
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from vesta_common.media import mask_runs
from vesta_common.media.outlines import outline_of
from vesta_common.media.rotated_boxes import described_as, normalized_angle, polygon_of
from vesta_contracts.common.v1 import Annotation, Mask, RotatedBox

from vesta_annotation.task_types.matching import Extents, Indices, Shapes


class Areas(Shapes):
    """Areas of any shape."""

    def __init__(self, annotations: Sequence[Annotation]) -> None:
        self._annotations = annotations
        self._outlines = np.array([_outline(one) for one in annotations], dtype=object)
        self._is_mask = np.array([one.HasField("mask") for one in annotations], np.bool_)
        self._edges: dict[tuple[int, int, int], mask_runs.Edges] = {}
        self.extents: Extents = np.array(shapely.bounds(self._outlines), np.float64).reshape(-1, 4)
        for index in np.flatnonzero(self._is_mask).tolist():
            mask = annotations[index].mask
            self.extents[index] = _extent(self.edges(index, mask), mask.width_px)

    def similarities(self, own: Indices, other: "Areas", others: Indices) -> NDArray[np.float64]:
        by_pixels = self._is_mask[own] | other._is_mask[others]
        found = np.zeros(len(own))
        one, two = self._outlines[own[~by_pixels]], other._outlines[others[~by_pixels]]
        intersection = shapely.area(shapely.intersection(one, two))
        union = shapely.area(one) + shapely.area(two) - intersection
        found[~by_pixels] = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
        pairs = zip(own[by_pixels].tolist(), others[by_pixels].tolist(), strict=True)
        found[by_pixels] = [self._pixel_iou(a, other, b) for a, b in pairs]
        return found.clip(0, 1)

    def edges(self, index: int, frame: Mask) -> mask_runs.Edges:
        """Returns the pixels of one area in an image of the size of a mask."""
        key = index, frame.height_px, frame.width_px
        if key not in self._edges:
            one = self._annotations[index]
            self._edges[key] = (
                mask_runs.edges_of(one.mask)
                if one.HasField("mask")
                else mask_runs.rasterised(polygon_of(one), frame.height_px, frame.width_px)
            )
        return self._edges[key]

    def _pixel_iou(self, own: int, other: "Areas", index: int) -> float:
        frame = self._annotations[own].mask if self._is_mask[own] else other._annotations[index].mask
        if other._is_mask[index] and frame.width_px != other._annotations[index].mask.width_px:
            return 0.0  # of two images: agreement by chance
        return mask_runs.iou(self.edges(own, frame), other.edges(index, frame))


def merged_area(annotations: Sequence[Annotation]) -> Annotation:
    """Returns an annotation with the merged shape of areas that several annotators drew of one object.

    If one of them is a mask, the result is the mask of the pixels that more than half of the annotators include. If all are rotated boxes,
    it is their median box. Otherwise, it is the median outline: that with the largest sum of similarities with the others, unchanged,
    because its points are an annotator's choice.
    """
    if all(one.HasField("rotated_box") for one in annotations):
        return _median_box(annotations)
    frame = next((one.mask for one in annotations if one.HasField("mask")), None)
    if frame is None:
        return _median(annotations)
    areas = Areas(annotations)
    edges = [areas.edges(index, frame) for index in range(len(annotations))]
    majority = mask_runs.covered(edges, len(edges) // 2 + 1)
    if not len(majority):
        return _median(annotations)
    return Annotation(mask=mask_runs.mask_of(majority, frame.height_px, frame.width_px))


def _median(annotations: Sequence[Annotation]) -> Annotation:
    """Returns the shape that is most similar to the others; of several, that of the smallest area, and then of the smallest coordinates."""
    areas = Areas(annotations)
    count = len(annotations)
    rows, columns = np.divmod(np.arange(count * count), count)
    sums = areas.similarities(rows, areas, columns).reshape(count, count).sum(axis=1).round(9)
    sizes = areas.extents[:, 2:] - areas.extents[:, :2]
    order = np.lexsort((*areas.extents.T[::-1], sizes.prod(axis=1), -sums))
    chosen = annotations[order[0]]
    shape = str(chosen.WhichOneof("shape"))
    median = Annotation()
    getattr(median, shape).CopyFrom(getattr(chosen, shape))
    return median


def _median_box(annotations: Sequence[Annotation]) -> Annotation:
    """Returns the box with the medians of the centres, sides and angles of rotated boxes, each described with the angle that is nearest to
    that of the median outline.
    """
    angle = _median(annotations).rotated_box.angle_deg
    boxes = [described_as(one.rotated_box, angle) for one in annotations]
    values = [(box.x_center_px, box.y_center_px, box.width_px, box.height_px, box.angle_deg) for box in boxes]
    x, y, width, height, turned = np.median(values, axis=0).tolist()
    median = RotatedBox(
        x_center_px=x, y_center_px=y, width_px=width, height_px=height, angle_deg=normalized_angle(turned)
    )
    return Annotation(rotated_box=median)


def _outline(annotation: Annotation) -> shapely.Geometry | None:
    """Returns the valid outline of a polygon or a rotated box; None for a mask."""
    if annotation.HasField("mask"):
        return None
    outline = outline_of(polygon_of(annotation))
    return outline if outline.is_valid else shapely.make_valid(outline)


def _extent(edges: mask_runs.Edges, width_px: int) -> tuple[float, float, float, float]:
    """Returns the box around the pixels of a mask; one that overlaps nothing for an empty mask."""
    if not len(edges):
        return math.inf, math.inf, -math.inf, -math.inf
    return mask_runs.bounds_of(edges, width_px)

"""Figures of the objects of an item: their number, sizes and duplicates. Pure."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from vesta_common.media.boxes import box_ious, corners
from vesta_contracts.common.v1 import Annotation, PixelPoint

DUPLICATE_IOU_MIN: Final = 0.9
MEDIUM_AREA_PX: Final = 32.0**2
LARGE_AREA_PX: Final = 96.0**2
"""The limits of COCO's sizes (https://cocodataset.org/#detection-eval)."""
_BLOCK: Final = 512


class ObjectFigures(NamedTuple):
    """Figures of the objects of an item.

    Attributes:
        object_count: of objects, which are all annotations but image labels.
        duplicate_count: boxes that are duplicates of an earlier one; see `duplicate_boxes`.
        area_min_px, area_max_px: of the smallest and the largest object, in pixels; None without an object that has an area.
    """

    object_count: int
    duplicate_count: int
    area_min_px: float | None
    area_max_px: float | None


def figures_of(annotations: Iterable[Annotation]) -> ObjectFigures:
    """Returns the figures of an item's annotations."""
    objects = objects_of(annotations)
    areas = [area for one in objects if (area := area_px(one)) is not None]
    return ObjectFigures(
        len(objects), len(duplicate_boxes(objects)), min(areas, default=None), max(areas, default=None)
    )


def figures_by_concept(annotations: Iterable[Annotation]) -> dict[str, tuple[int, float | None, float | None]]:
    """Returns, for each concept of an item's objects, their number and the areas of the smallest and the largest one, in pixels."""
    by_concept: dict[str, list[Annotation]] = {}
    for annotation in objects_of(annotations):
        by_concept.setdefault(annotation.concept, []).append(annotation)
    figures = {concept: figures_of(found) for concept, found in by_concept.items()}
    return {concept: (found.object_count, found.area_min_px, found.area_max_px) for concept, found in figures.items()}


def objects_of(annotations: Iterable[Annotation]) -> list[Annotation]:
    """Returns all annotations but image labels."""
    return [annotation for annotation in annotations if not annotation.HasField("image_label")]


def area_px(annotation: Annotation) -> float | None:
    """Returns the area of a box, a rotated box, a polygon or a mask in pixels; None for other shapes."""
    match annotation.WhichOneof("shape"):
        case "box":
            box = annotation.box
            return (box.x_max_px - box.x_min_px) * (box.y_max_px - box.y_min_px)
        case "rotated_box":
            return annotation.rotated_box.width_px * annotation.rotated_box.height_px
        case "polygon":
            holes = sum(_enclosed(ring.points) for ring in annotation.polygon.holes)
            return max(0.0, _enclosed(annotation.polygon.outline.points) - holes)
        case "mask":
            return float(sum(annotation.mask.runs_px[1::2]))
        case _:
            return None


def duplicate_boxes(annotations: Sequence[Annotation]) -> list[int]:
    """Returns the indices of boxes that overlap an earlier box of the same concept with an IoU of at least `DUPLICATE_IOU_MIN`."""
    by_concept: dict[str, list[int]] = {}
    for index, annotation in enumerate(annotations):
        if annotation.HasField("box"):
            by_concept.setdefault(annotation.concept, []).append(index)
    found = []
    for indices in by_concept.values():
        boxes = corners([annotations[index] for index in indices])
        for start in range(0, len(indices), _BLOCK):
            block = boxes[start : start + _BLOCK]
            earlier = np.arange(len(indices))[None, :] < np.arange(start, start + len(block))[:, None]
            repeated = ((box_ious(block, boxes) >= DUPLICATE_IOU_MIN) & earlier).any(axis=1)
            found += [indices[start + row] for row in np.flatnonzero(repeated)]
    return sorted(found)


def size_of(area: float) -> str:
    """Returns COCO's name of the size of an object: small, medium or large."""
    return "small" if area < MEDIUM_AREA_PX else "medium" if area < LARGE_AREA_PX else "large"


def _enclosed(points: Sequence[PixelPoint]) -> float:
    """Returns the area of a ring (https://en.wikipedia.org/wiki/Shoelace_formula)."""
    edges = pairwise([*points, *points[:1]])
    return abs(math.fsum(one.x_px * other.y_px - other.x_px * one.y_px for one, other in edges)) / 2

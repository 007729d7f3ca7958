"""The smallest axis-aligned box around a shape. Pure."""

import math

from vesta_common.media.mask_runs import bounds_of, edges_of
from vesta_contracts.common.v1 import Annotation, Mask, PixelBox, PixelPoint, RotatedBox


def bounding_box(annotation: Annotation) -> PixelBox | None:
    """Returns the box around a box, a rotated box, a polygon or a mask; None for other shapes, and for a mask without pixels."""
    match annotation.WhichOneof("shape"):
        case "box":
            return annotation.box
        case "rotated_box":
            return _around_rotated(annotation.rotated_box)
        case "polygon":
            return _around(list(annotation.polygon.outline.points))
        case "mask":
            return _around_mask(annotation.mask)
        case _:
            return None


def _around(points: list[PixelPoint]) -> PixelBox:
    xs, ys = [point.x_px for point in points], [point.y_px for point in points]
    return PixelBox(x_min_px=min(xs), y_min_px=min(ys), x_max_px=max(xs), y_max_px=max(ys))


def _around_rotated(box: RotatedBox) -> PixelBox:
    cos, sin = abs(math.cos(math.radians(box.angle_deg))), abs(math.sin(math.radians(box.angle_deg)))
    half_width = (box.width_px * cos + box.height_px * sin) / 2
    half_height = (box.width_px * sin + box.height_px * cos) / 2
    return PixelBox(
        x_min_px=box.x_center_px - half_width,
        y_min_px=box.y_center_px - half_height,
        x_max_px=box.x_center_px + half_width,
        y_max_px=box.y_center_px + half_height,
    )


def _around_mask(mask: Mask) -> PixelBox | None:
    edges = edges_of(mask)
    if not len(edges):
        return None
    x_min, y_min, x_max, y_max = bounds_of(edges, mask.width_px)
    return PixelBox(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max)

"""Rotated boxes: their corners, and boxes from corners. Pure.

A rotated box has four descriptions with the same corners, because its first axis can be any of its sides; see `described_as`.
"""

import math
from collections.abc import Sequence

from vesta_contracts.common.v1 import Annotation, PixelPoint, Polygon, Ring, RotatedBox

Point = tuple[float, float]


def corners_of(box: RotatedBox) -> list[Point]:
    """Returns the corners in pixels, clockwise on screen. Without rotation, the first is the top left one."""
    angle = math.radians(box.angle_deg)
    cos, sin = math.cos(angle), math.sin(angle)
    offsets = [(x * box.width_px / 2, y * box.height_px / 2) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return [(box.x_center_px + x * cos - y * sin, box.y_center_px + x * sin + y * cos) for x, y in offsets]


def rotated_box_of(corners: Sequence[Point]) -> RotatedBox:
    """Returns the box with four corners, given in their order around it. Of another quadrilateral, the box with its mean sides."""
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = corners
    along = (bx - ax + cx - dx) / 2, (by - ay + cy - dy) / 2
    across = (dx - ax + cx - bx) / 2, (dy - ay + cy - by) / 2
    return RotatedBox(
        x_center_px=(ax + bx + cx + dx) / 4,
        y_center_px=(ay + by + cy + dy) / 4,
        width_px=math.hypot(*along),
        height_px=math.hypot(*across),
        angle_deg=math.degrees(math.atan2(along[1], along[0])),
    )


def described_as(box: RotatedBox, angle_deg: float) -> RotatedBox:
    """Returns the description of a box whose angle is nearest to the given one: at most 45° away, and possibly outside of [-180, 180]."""
    quarters = round((angle_deg - box.angle_deg) / 90)
    turned = RotatedBox()
    turned.CopyFrom(box)
    turned.angle_deg += 90 * quarters
    if quarters % 2:
        turned.width_px, turned.height_px = box.height_px, box.width_px
    return turned


def normalized_angle(angle_deg: float) -> float:
    """Returns an equal angle in (-180, 180]."""
    angle = angle_deg % 360
    return angle - 360 if angle > 180 else angle


def polygon_of(annotation: Annotation) -> Polygon:
    """Returns the polygon of an annotation with a polygon or a rotated box; an empty one for other shapes."""
    if not annotation.HasField("rotated_box"):
        return annotation.polygon
    points = [PixelPoint(x_px=x, y_px=y) for x, y in corners_of(annotation.rotated_box)]
    return Polygon(outline=Ring(points=points))

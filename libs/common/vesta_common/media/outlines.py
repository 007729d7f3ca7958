"""Polygons as geometries of shapely. Pure."""

from collections.abc import Sequence

import shapely
from shapely.validation import explain_validity
from vesta_contracts.common.v1 import Polygon, Ring


def outline_of(polygon: Polygon) -> shapely.Polygon:
    """Returns the geometry of a polygon, in pixels. It may be invalid."""
    return shapely.Polygon(_points(polygon.outline), [_points(hole) for hole in polygon.holes])


def find_crossing(polygon: Polygon) -> str:
    """Returns where and how the rings of a polygon cross, touch along a line, or enclose nothing; empty if they do not.

    A ring may touch itself at a point, as many outlines of labelling tools do.
    """
    outline = outline_of(polygon)
    crossing: str = "" if outline.is_valid else explain_validity(outline)
    return "" if crossing.startswith("Ring Self-intersection") else crossing


def _points(ring: Ring) -> Sequence[tuple[float, float]]:
    return [(point.x_px, point.y_px) for point in ring.points]

"""Polygons and masks of one image are compared by their pixels."""

import numpy as np
import pytest
from vesta_common.media.areas import area_ious
from vesta_contracts.common.v1 import Annotation, Mask, PixelPoint, Polygon, Ring


def a_mask(*runs: int) -> Annotation:
    """Returns a mask of 10 x 10 pixels."""
    return Annotation(mask=Mask(height_px=10, width_px=10, runs_px=[*runs, 100 - sum(runs)]))


def a_rectangle(x: float, y: float, x_end: float, y_end: float) -> Annotation:
    points = [PixelPoint(x_px=a, y_px=b) for a, b in ((x, y), (x_end, y), (x_end, y_end), (x, y_end))]
    return Annotation(polygon=Polygon(outline=Ring(points=points)))


def test_masks_and_polygons_are_compared_by_pixels() -> None:
    upper, lower = a_mask(0, 50), a_mask(50, 50)
    rectangles = [a_rectangle(0, 0, 10, 5), a_rectangle(0, 3, 10, 7), a_rectangle(0, 8, 10, 10)]
    expected = np.array([[1, 2 / 7, 0], [0, 2 / 7, 2 / 5]])
    assert area_ious([upper, lower], rectangles) == pytest.approx(expected)
    assert area_ious(rectangles, [upper, lower]) == pytest.approx(expected.T)


def test_polygons_are_compared_without_a_mask() -> None:
    assert area_ious([a_rectangle(0, 0, 4, 4)], [a_rectangle(2, 0, 6, 4.4)]).tolist() == [[1 / 3]]


def test_nothing_overlaps_with_an_empty_mask_or_nothing() -> None:
    assert area_ious([a_mask(100)], [a_mask(100), a_mask(0, 100)]).tolist() == [[0, 0]]
    assert area_ious([], [a_mask(0, 5)]).shape == (0, 1)
    assert area_ious([], []).shape == (0, 0)

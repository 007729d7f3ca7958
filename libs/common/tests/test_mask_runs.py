"""Masks as edges: overlap, majority and the pixels of polygons, compared with pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from vesta_common.media.mask_runs import area, covered, edges_of, iou, mask_of, overlap, rasterised, without
from vesta_contracts.common.v1 import Mask, PixelPoint, Polygon, Ring

SIZE = (5, 7)
Pixels = NDArray[np.bool_]
masks = arrays.arrays(np.bool_, SIZE)


def edges(pixels: Pixels) -> NDArray[np.int64]:
    return np.flatnonzero(np.diff(np.concatenate([[False], pixels.ravel(), [False]])))


def pixels_of(found: NDArray[np.int64], size: tuple[int, int] = SIZE) -> Pixels:
    pixels = np.zeros(size[0] * size[1], np.bool_)
    for begin, end in found.reshape(-1, 2):
        pixels[begin:end] = True
    return pixels.reshape(size)


def ring(*points: tuple[float, float]) -> Ring:
    return Ring(points=[PixelPoint(x_px=x, y_px=y) for x, y in points])


@given(masks)
def test_a_mask_is_its_edges(pixels: Pixels) -> None:
    mask = mask_of(edges(pixels), *SIZE)
    assert sum(mask.runs_px) == pixels.size
    assert edges_of(mask).tolist() == edges(pixels).tolist()
    assert area(edges_of(mask)) == pixels.sum()


@given(masks, masks)
def test_overlap_and_difference_are_those_of_the_pixels(one: Pixels, other: Pixels) -> None:
    assert overlap(edges(one), edges(other)) == (one & other).sum()
    union = (one | other).sum()
    assert iou(edges(one), edges(other)) == (pytest.approx((one & other).sum() / union) if union else 0)
    assert (pixels_of(without(edges(one), edges(other))) == (one & ~other)).all()


@given(st.lists(masks, max_size=5), st.integers(1, 6))
def test_the_pixels_of_at_least_some_masks_are_counted(given_masks: list[Pixels], least: int) -> None:
    expected = np.sum(given_masks, axis=0) >= least if given_masks else np.zeros(SIZE, np.bool_)
    assert (pixels_of(covered([edges(one) for one in given_masks], least)) == expected).all()


def test_empty_runs_are_allowed() -> None:
    assert edges_of(Mask(height_px=1, width_px=6, runs_px=[0, 2, 0, 1, 3])).tolist() == [0, 3]
    assert edges_of(Mask(height_px=1, width_px=6, runs_px=[6])).tolist() == []
    assert edges_of(Mask(height_px=1, width_px=6, runs_px=[2, 0, 4])).tolist() == []


def test_a_polygon_covers_the_pixels_whose_centres_it_contains() -> None:
    square = Polygon(outline=ring((1, 1), (6, 1), (6, 4), (1, 4)), holes=[ring((2, 2), (4, 2), (4, 3), (2, 3))])
    pixels = pixels_of(rasterised(square, *SIZE))
    expected = np.zeros(SIZE, np.bool_)
    expected[1:4, 1:6] = True
    expected[2, 2:4] = False
    assert (pixels == expected).all()


def test_a_polygon_is_cut_at_the_image() -> None:
    assert pixels_of(rasterised(Polygon(outline=ring((-9, -9), (30, -9), (30, 30), (-9, 30))), *SIZE)).all()
    assert not len(rasterised(Polygon(outline=ring((8, 8), (9, 8), (9, 9))), *SIZE))


coordinates = st.floats(-2, 9)


@settings(deadline=None)
@given(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=8))
def test_any_polygon_covers_the_pixels_by_the_even_odd_rule(points: list[tuple[float, float]]) -> None:
    expected = np.zeros(SIZE, np.bool_)
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            y = row + 0.5
            for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
                if (y1 <= y) != (y2 <= y):
                    low, high = sorted([(x1, y1), (x2, y2)], key=lambda point: point[1])
                    crossing = low[0] + (y - low[1]) * (high[0] - low[0]) / (high[1] - low[1])
                    expected[row, column] ^= bool(np.ceil(crossing - 0.5) <= column)
    assert (pixels_of(rasterised(Polygon(outline=ring(*points)), *SIZE)) == expected).all()


def test_a_tall_image_is_covered_in_bands() -> None:
    size = (300, 4)
    assert pixels_of(rasterised(Polygon(outline=ring((0, 0), (4, 0), (4, 300), (0, 300))), *size), size).all()

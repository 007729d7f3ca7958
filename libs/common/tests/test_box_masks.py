"""Masks in the frames of boxes: their pixels on the image, and the overlap of many masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image
from vesta_common.media.box_masks import mask_ious, paste
from vesta_common.media.mask_runs import bounds_of, mask_edges

WHOLE = (0.0, 0.0, 20.0, 10.0)
FULL = np.ones((4, 4), np.float32)


def pixels_of(edges: NDArray[np.int64], height: int = 10, width: int = 20) -> NDArray[np.bool_]:
    pixels = np.zeros(height * width, np.bool_)
    for begin, end in edges.reshape(-1, 2):
        pixels[begin:end] = True
    return pixels.reshape(height, width)


@pytest.mark.parametrize(
    ("box", "area", "expected"),
    [
        ((2, 3, 7, 9), WHOLE, (slice(3, 9), slice(2, 7))),
        ((2.4, 3.6, 7.4, 8.6), WHOLE, (slice(4, 9), slice(2, 7))),
        ((-5, -5, 3, 2), WHOLE, (slice(0, 2), slice(0, 3))),
        ((15, 5, 40, 40), WHOLE, (slice(5, 10), slice(15, 20))),
        ((0, 0, 20, 10), WHOLE, (slice(0, 10), slice(0, 20))),
        ((2, 3, 7, 9), (4, 5, 20, 10), (slice(5, 9), slice(4, 7))),
        ((7, 3, 2, 9), WHOLE, (slice(0, 0), slice(0, 0))),
        ((30, 3, 40, 9), WHOLE, (slice(0, 0), slice(0, 0))),
        ((3.1, 3.1, 3.4, 3.4), WHOLE, (slice(0, 0), slice(0, 0))),
    ],
)
def test_a_full_mask_has_the_pixels_whose_centres_are_in_the_box_and_the_area(
    box: tuple[float, ...], area: tuple[float, float, float, float], expected: tuple[slice, slice]
) -> None:
    pixels = np.zeros((10, 20), np.bool_)
    pixels[expected] = True
    assert (pixels_of(paste(FULL, np.array(box, np.float64), area, 20)) == pixels).all()


@given(arrays.arrays(np.float32, (5, 5), elements=st.floats(0, 1, width=16)))
def test_probabilities_are_interpolated_as_pillow_enlarges_images(probabilities: NDArray[np.float32]) -> None:
    enlarged = np.asarray(Image.fromarray(probabilities).resize((15, 10), Image.Resampling.BILINEAR))
    pasted = pixels_of(paste(probabilities, np.array([3.0, 0, 18, 10]), WHOLE, 20))[:, 3:18]
    clear = abs(enlarged - 0.5) > 1e-4
    assert (pasted == (enlarged >= 0.5))[clear].all()


@given(arrays.arrays(np.bool_, (10, 20)))
def test_edges_of_a_part_are_those_of_the_image(pixels: NDArray[np.bool_]) -> None:
    edges = mask_edges(pixels[2:9, 4:17], 2, 4, 20)
    expected = np.zeros_like(pixels)
    expected[2:9, 4:17] = pixels[2:9, 4:17]
    assert (np.diff(edges) > 0).all()
    assert (pixels_of(edges) == expected).all()


@given(arrays.arrays(np.bool_, (10, 20)))
def test_the_box_around_a_mask_contains_its_pixels_only(pixels: NDArray[np.bool_]) -> None:
    rows, columns = np.nonzero(pixels)
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else (0, 0, 0, 0)
    assert bounds_of(mask_edges(pixels, 0, 0, 20), 20) == expected


def test_only_masks_that_may_overlap_are_compared() -> None:
    left, right = (paste(FULL, np.array(box, np.float64), WHOLE, 20) for box in ((0, 0, 10, 4), (5, 0, 15, 4)))
    assert mask_ious([left, right], [right]).tolist() == [[pytest.approx(1 / 3)], [1.0]]
    assert mask_ious([left, right], [right], np.array([[True], [False]])).tolist() == [[pytest.approx(1 / 3)], [0.0]]
    assert mask_ious([], [right]).shape == (0, 1)

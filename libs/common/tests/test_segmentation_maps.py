"""Maps of concepts: placed on the image, reduced to the predicted concepts, and run-length encoded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from vesta_common.media.model_input import Box, InputFormat, place
from vesta_common.media.segmentation_maps import (
    Map,
    map_certainties,
    map_on_image,
    margin_of_map,
    predicted_map,
    run_lengths,
)
from vesta_contracts.common.v1 import SegmentationMap

CONCEPTS = ("cell", "platelet", "nucleus")
QUARTERS = np.array([[1, 2], [3, 0]], np.uint8)


def a_map(rows: list[str]) -> Map:
    return np.array([[int(number) for number in row] for row in rows], np.uint8)


def floats(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("declared", "width_px", "height_px", "region", "expected"),
    [
        (InputFormat(2, 2), 4, 2, None, ["1122", "3300"]),
        (InputFormat(2, 2), 2, 4, None, ["12", "12", "30", "30"]),
        (InputFormat(2, 2), 1, 1, None, ["0"]),
        # The scaled image has one row, the first one of the input.
        (InputFormat(2, 2, "letterbox"), 4, 2, None, ["1122", "1122"]),
        # The middle third of the image is shown.
        (InputFormat(2, 2, "crop"), 6, 2, None, ["001200", "003000"]),
        (InputFormat(2, 2), 6, 3, (1.0, 1.0, 5.0, 3.0), ["000000", "011220", "033000"]),
        # A pixel that is partly in the region is predicted if its centre is.
        (InputFormat(2, 2), 4, 2, (0.4, 0.0, 3.4, 2.0), ["1120", "3300"]),
    ],
)
def test_pixels_of_the_image_have_the_concept_around_their_centre(
    declared: InputFormat, width_px: int, height_px: int, region: Box | None, expected: list[str]
) -> None:
    found = map_on_image(QUARTERS, place(declared, width_px, height_px, region))
    assert found.tolist() == a_map(expected).tolist()


def test_borders_are_smooth_on_larger_images() -> None:
    """A disc of an input of 16 pixels is a disc on an image of 200, unlike one of blocks."""
    input_px, image_px = 16, 200

    def disc(side: int) -> Map:
        x = (np.arange(side) + 0.5) / side - 0.5
        return (x**2 + x[:, None] ** 2 < 0.35**2).astype(np.uint8)

    declared = InputFormat(input_px, input_px)
    truth, nearest = disc(image_px), np.arange(image_px) * input_px // image_px
    blocks = disc(input_px)[np.ix_(nearest, nearest)]
    found = map_on_image(disc(input_px), place(declared, image_px, image_px))

    assert (found != truth).mean() < 0.75 * (blocks != truth).mean()


def test_a_line_of_one_pixel_stays_on_larger_images() -> None:
    line = np.zeros((9, 9), np.uint8)
    line[:, 4] = 2

    found = map_on_image(line, place(InputFormat(9, 9), 36, 18))

    assert found[:, 17:19].tolist() == [[2, 2]] * 18


@given(arrays(np.uint8, (5, 7), elements=st.integers(0, 3)), st.integers(1, 40), st.integers(1, 40))
def test_a_map_on_an_image_has_only_concepts_of_the_input_and_fills_it(
    found: Map, width_px: int, height_px: int
) -> None:
    on_image = map_on_image(found, place(InputFormat(5, 7), width_px, height_px))
    assert on_image.shape == (height_px, width_px)
    assert np.isin(on_image, found).all()
    same = map_on_image(found, place(InputFormat(5, 7), 7, 5))
    assert same.tolist() == found.tolist()


def test_concepts_below_their_threshold_are_taken_from_the_map_and_those_without_pixels_score_zero() -> None:
    found = a_map(["1122"])
    kept, scores, predicted = predicted_map(found, floats(0.9, 0.3, 0.8), floats(0.5, 0.5, 0.0))
    assert kept.tolist() == [[1, 1, 0, 0]]
    assert scores.tolist() == floats(0.9, 0.3, 0).tolist()
    assert predicted.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("scores", "overlaps", "margin"),
    [
        ((1.0, 0.0, 0.0), (1.0, 0.0, 0.0), 1.0),
        ((1.0, 0.0, 0.0), (0.75, 0.0, 0.0), 0.5),
        ((1.0, 0.0, 0.0), (0.4, 0.0, 0.0), 0.0),
        ((1.0, 0.25, 0.0), (1.0, 0.9, 0.0), 0.5),
        ((0.6, 0.0, 0.0), (1.0, 0.0, 0.0), 0.2),
    ],
)
def test_the_margin_is_the_smallest_certainty_of_presence_and_pixels(
    scores: tuple[float, ...], overlaps: tuple[float, ...], margin: float
) -> None:
    halves = floats(0.5, 0.5, 0.5)
    assert margin_of_map(floats(*scores), floats(*overlaps), halves) == pytest.approx(margin)
    presence, pixels = map_certainties(floats(*scores), floats(*overlaps), halves)
    assert min(*presence, *pixels) == pytest.approx(margin)


def test_a_map_without_concepts_is_certain() -> None:
    assert margin_of_map(floats(), floats(), floats()) == 1


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
def test_run_lengths_give_the_map_back(found: Map) -> None:
    message = run_lengths(found, CONCEPTS)
    assert pixels(message).tolist() == found.tolist()
    assert list(message.concepts) == [CONCEPTS[number - 1] for number in np.unique(found).tolist() if number]
    assert all(run > 0 for run in message.runs_px)
    assert (np.diff(message.concept_numbers) != 0).all()


def pixels(message: SegmentationMap) -> Map:
    """Returns the map over `CONCEPTS`."""
    numbers = np.array([0, *(CONCEPTS.index(concept) + 1 for concept in message.concepts)], np.uint8)
    flat = np.repeat(numbers[list(message.concept_numbers)], list(message.runs_px))
    return flat.reshape(message.height_px, message.width_px)

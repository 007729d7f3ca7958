"""Consensus of boxes: matching, the decision of each object by majority, and distances for agreement."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_annotation.task_types.boxes import corners, iou, match
from vesta_annotation.task_types.detection import Detection, distance
from vesta_contracts.annotation.v1 import Submission
from vesta_contracts.common.v1 import Annotation, PixelBox

DETECTION = Detection()


def a_box(x: float, y: float, concept: str = "van", side: float = 20, **attributes: str) -> Annotation:
    box = PixelBox(x_min_px=x, y_min_px=y, x_max_px=x + side, y_max_px=y + side)
    return Annotation(concept=concept, box=box, attributes=attributes)


def drawn(*answers: list[Annotation]) -> list[Submission]:
    return [Submission(annotator="abcdefg"[index], annotations=boxes) for index, boxes in enumerate(answers)]


def found(*answers: list[Annotation]) -> tuple[list[tuple[str, float]], str, list[str]]:
    """Returns concept and x of the accepted boxes, the annotators who agree, and the concepts of the disputed boxes."""
    consensus = DETECTION.consensus(drawn(*answers))
    return (
        sorted((box.concept, box.box.x_min_px) for box in consensus.annotations),
        "".join(consensus.annotators),
        sorted(box.concept for box in consensus.disputed),
    )


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([[a_box(0, 0)]], ([("van", 0)], "a", [])),
        ([[], []], ([], "ab", [])),
        ([[a_box(0, 0)], [a_box(2, 0)]], ([("van", 1)], "ab", [])),
        ([[a_box(0, 0)], [a_box(2, 0)], [a_box(8, 0)]], ([("van", 2)], "abc", [])),
        # An object that one of two drew, and one of three.
        ([[a_box(0, 0), a_box(60, 0)], [a_box(0, 0)]], ([("van", 0)], "b", ["van"])),
        ([[a_box(0, 0), a_box(60, 0)], [a_box(0, 0)], [a_box(0, 0)]], ([("van", 0)], "bc", [])),
        ([[a_box(0, 0)], [a_box(0, 0)], []], ([("van", 0)], "ab", [])),
        # Concepts.
        ([[a_box(0, 0, "car")], [a_box(0, 0)]], ([], "", ["car"])),
        ([[a_box(4, 0, "car")], [a_box(0, 0)], [a_box(0, 0)]], ([("van", 0)], "bc", [])),
        ([[a_box(0, 0, "car")], [a_box(0, 0)], [a_box(0, 0, "bus")]], ([], "", ["bus"])),
        # Too far apart to be one object.
        ([[a_box(0, 0)], [a_box(15, 0)], [a_box(0, 1)]], ([("van", 0)], "ac", [])),
    ],
)
def test_each_object_is_decided_by_the_majority(
    answers: list[list[Annotation]], expected: tuple[list[tuple[str, float]], str, list[str]]
) -> None:
    assert found(*answers) == expected


def test_neighbouring_boxes_are_matched_so_that_all_overlap_most() -> None:
    one, other = [a_box(0, 0), a_box(8, 0)], [a_box(6, 0), a_box(-2, 0)]
    assert sorted(match(one, other, same_concept=False)) == [(0, 1), (1, 0)]


def test_boxes_of_one_place_are_matched_by_their_concepts() -> None:
    one, other = [a_box(0, 0, "car"), a_box(0, 0, "plate")], [a_box(0, 0, "plate"), a_box(0, 0, "car")]
    assert sorted(match(one, other, same_concept=False)) == [(0, 1), (1, 0)]
    assert DETECTION.agree(one, other)
    assert distance(one, other) == pytest.approx(0)


def test_attributes_are_those_of_most_annotators() -> None:
    answers = drawn(
        [a_box(0, 0, occluded="true")], [a_box(0, 0, occluded="true", cut="yes")], [a_box(0, 0, occluded="false")]
    )
    assert dict(DETECTION.consensus(answers).annotations[0].attributes) == {"occluded": "true"}


places = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), unique=True, max_size=6)


@given(places, st.integers(1, 5), st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
def test_jittered_copies_of_the_same_objects_are_these_objects_in_any_order(
    objects: list[tuple[int, int]], annotators: int, seed: int, shuffle: random.Random
) -> None:
    """Objects are 40 pixels apart; each corner moves by at most 2 of 20 pixels, so that boxes of an object overlap by half."""
    jitter = np.random.default_rng(seed)
    answers = []
    for _ in range(annotators):
        boxes = [a_box(40 * x + jitter.uniform(-2, 2), 40 * y + jitter.uniform(-2, 2), f"c{x}") for x, y in objects]
        answers.append(shuffle.sample(boxes, len(boxes)))
    consensus = DETECTION.consensus(drawn(*answers))
    assert not consensus.disputed
    assert len(consensus.annotators) == annotators
    merged = sorted((round(box.box.x_min_px / 40), round(box.box.y_min_px / 40)) for box in consensus.annotations)
    assert merged == sorted(objects)
    assert all(DETECTION.agree(consensus.annotations, answer) for answer in answers)


boxes = st.lists(st.builds(a_box, st.floats(0, 60), st.floats(0, 60), st.sampled_from(["van", "car"])), max_size=5)


@given(boxes, boxes)
def test_the_distance_is_symmetric_and_0_only_for_equal_answers(one: list[Annotation], other: list[Annotation]) -> None:
    found = distance(one, other)
    assert 0 <= found <= 1
    assert found == pytest.approx(distance(other, one))
    assert distance(one, one) == pytest.approx(0)


def test_the_distance_is_the_share_that_does_not_overlap() -> None:
    assert distance([], []) == 0
    assert distance([a_box(0, 0)], []) == 1
    assert distance([a_box(0, 0)], [a_box(0, 0, "car")]) == 1
    assert distance([a_box(0, 0)], [a_box(5, 0)]) == pytest.approx(1 - 15 / 25)
    assert distance([a_box(0, 0), a_box(60, 0)], [a_box(0, 0)]) == 0.5
    np.testing.assert_allclose(iou(corners([a_box(0, 0)]), corners([a_box(5, 0), a_box(40, 0)])), [[0.6, 0.0]])

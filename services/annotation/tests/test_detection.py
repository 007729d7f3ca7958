"""Consensus of boxes: matching, the decision of each object by majority, and distances for agreement."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vesta_annotation.task_types import matching
from vesta_annotation.task_types.detection import Detection
from vesta_annotation.task_types.matching import match
from vesta_annotation.task_types.objects import distance
from vesta_common.media.boxes import box_iou, corners
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
        sorted(one.suggestion.concept for one in consensus.disagreements if one.disputed),
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
        # Two of three, and three of five, see an object at about the same place, but not the same one.
        ([[a_box(0, 0)], [a_box(12, 0)], []], ([], "c", ["van"])),
        ([[a_box(0, 0)], [a_box(12, 0, "car")], []], ([], "c", ["car"])),
        ([[a_box(0, 0)], [a_box(1, 0)], [a_box(12, 0)], [], []], ([], "de", ["van"])),
        ([[a_box(0, 0)], [a_box(12, 0)], [], [], []], ([], "cde", [])),
        ([[a_box(0, 0)], [a_box(19, 0)], []], ([], "c", [])),
        ([[a_box(0, 0), a_box(12, 0)], [], []], ([], "bc", [])),
    ],
)
def test_each_object_is_decided_by_the_majority(
    answers: list[list[Annotation]], expected: tuple[list[tuple[str, float]], str, list[str]]
) -> None:
    assert found(*answers) == expected


def test_neighbouring_boxes_are_matched_so_that_all_overlap_most() -> None:
    one, other = [a_box(0, 0), a_box(8, 0)], [a_box(6, 0), a_box(-2, 0)]
    assert sorted(match(DETECTION.value(one), DETECTION.value(other), same_concept=False)) == [(0, 1), (1, 0)]


def test_boxes_of_one_place_are_matched_by_their_concepts() -> None:
    one, other = [a_box(0, 0, "car"), a_box(0, 0, "plate")], [a_box(0, 0, "plate"), a_box(0, 0, "car")]
    assert sorted(match(DETECTION.value(one), DETECTION.value(other), same_concept=False)) == [(0, 1), (1, 0)]
    assert DETECTION.agree(DETECTION.value(one), DETECTION.value(other))
    assert far(one, other) == pytest.approx(0)


def test_attributes_are_those_of_most_annotators() -> None:
    answers = drawn(
        [a_box(0, 0, occluded="true")], [a_box(0, 0, occluded="true", cut="yes")], [a_box(0, 0, occluded="false")]
    )
    assert dict(DETECTION.consensus(answers).annotations[0].attributes) == {"occluded": "true"}


def far(one: list[Annotation], other: list[Annotation]) -> float:
    """Returns the distance of two answers."""
    return distance(DETECTION.value(one), DETECTION.value(other))


places = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), unique=True, max_size=6)


@settings(deadline=None)
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
    assert not consensus.disagreements
    assert len(consensus.annotators) == annotators
    merged = sorted((round(box.box.x_min_px / 40), round(box.box.y_min_px / 40)) for box in consensus.annotations)
    assert merged == sorted(objects)
    merged_value = DETECTION.value(consensus.annotations)
    assert all(DETECTION.agree(merged_value, DETECTION.value(answer)) for answer in answers)


boxes = st.lists(st.builds(a_box, st.floats(0, 60), st.floats(0, 60), st.sampled_from(["van", "car"])), max_size=5)


@settings(deadline=None)
@given(boxes, boxes)
def test_the_distance_is_symmetric_and_0_only_for_equal_answers(one: list[Annotation], other: list[Annotation]) -> None:
    found = far(one, other)
    assert 0 <= found <= 1
    assert found == pytest.approx(far(other, one))
    assert far(one, one) == pytest.approx(0)


def test_the_distance_is_the_share_that_does_not_overlap() -> None:
    assert far([], []) == 0
    assert far([a_box(0, 0)], []) == 1
    assert far([a_box(0, 0)], [a_box(0, 0, "car")]) == 1
    assert far([a_box(0, 0)], [a_box(5, 0)]) == pytest.approx(1 - 15 / 25)
    assert far([a_box(0, 0), a_box(60, 0)], [a_box(0, 0)]) == 0.5
    np.testing.assert_allclose(box_iou(corners([a_box(0, 0)] * 2), corners([a_box(5, 0), a_box(40, 0)])), [0.6, 0.0])


@pytest.mark.parametrize(
    ("attributes", "disputed"),
    [
        (["true", "true"], False),
        (["true", "false"], True),
        (["true", ""], True),
        (["true", "", ""], False),
        (["true", "true", "false"], False),
        (["true", "false", ""], True),
    ],
)
def test_an_attribute_that_half_of_the_annotators_state_is_disputed(attributes: list[str], disputed: bool) -> None:
    answers = drawn(*([a_box(0, 0, **({"occluded": value} if value else {}))] for value in attributes))
    assert DETECTION.consensus(answers).is_disputed is disputed


def test_an_object_drawn_in_different_places_is_one_disagreement() -> None:
    consensus = DETECTION.consensus(drawn([a_box(0, 0), a_box(60, 0)], [a_box(12, 0)], [a_box(60, 1)]))
    split, missed = consensus.disagreements
    assert [(one.annotator, one.annotation_index) for one in split.opinions] == [("a", 0), ("b", 0)]
    assert (split.disputed, split.suggestion.box.x_min_px) == (True, 6)
    assert [one.annotator for one in missed.opinions] == ["a", "c"]
    assert [box.box.x_min_px for box in consensus.annotations] == [60]


def test_disagreements_name_who_annotated_what() -> None:
    answers = drawn([a_box(0, 0), a_box(60, 0)], [a_box(60, 1, "car"), a_box(2, 0)], [a_box(1, 0)], [a_box(0, 60)])
    consensus = DETECTION.consensus(answers)
    assert [box.concept for box in consensus.annotations] == ["van"]
    (disputed, *decided) = consensus.disagreements
    assert disputed.disputed
    assert disputed.suggestion.concept == "car"
    opinions = [(one.annotator, one.concept, one.annotation_index) for one in disputed.opinions]
    assert opinions == [("a", "van", 1), ("b", "car", 0)]
    assert sorted("".join(one.annotator for one in other.opinions) for other in decided) == ["abc", "d"]
    assert not any(other.disputed or other.HasField("suggestion") for other in decided)


def test_a_group_of_overlapping_boxes_is_matched_in_the_best_way_or_greedily(monkeypatch: pytest.MonkeyPatch) -> None:
    one = DETECTION.value([a_box(0, 0), a_box(4, 0)])
    other = DETECTION.value([a_box(-5, 0), a_box(1, 0)])
    assert sorted(match(one, other, same_concept=False)) == [(0, 0), (1, 1)]
    monkeypatch.setattr(matching, "ASSIGNED_MAX", 1)
    assert sorted(match(one, other, same_concept=False)) == [(0, 1)]


def test_thousands_of_boxes_are_matched() -> None:
    grid = [a_box(30 * x, 30 * y) for x in range(60) for y in range(60)]
    moved = [a_box(30 * x + 2, 30 * y + 1) for x in range(60) for y in range(60)]
    consensus = DETECTION.consensus(drawn(grid, moved[::-1], grid))
    assert (len(consensus.annotations), len(consensus.disagreements)) == (3600, 0)

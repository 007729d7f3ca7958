"""Consensus of keypoints: the object keypoint similarity, and the median of each point."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vesta_annotation.task_types.keypoints import Keypoints
from vesta_annotation.task_types.matching import match
from vesta_annotation.task_types.objects import distance
from vesta_contracts.annotation.v1 import Submission
from vesta_contracts.common.v1 import Annotation, Keypoint, PixelPoint, Visibility
from vesta_contracts.common.v1 import Keypoints as Points

TASK = Keypoints()
SQUARE = {"nose": (0.0, 0.0), "left": (40.0, 0.0), "right": (0.0, 40.0), "tail": (40.0, 40.0)}
VISIBLE, OCCLUDED, ABSENT = (
    Visibility.VISIBILITY_VISIBLE,
    Visibility.VISIBILITY_OCCLUDED,
    Visibility.VISIBILITY_ABSENT,
)


def an_object(
    x: float = 0, y: float = 0, concept: str = "dog", absent: str = "", **moved: tuple[float, float] | None
) -> Annotation:
    """Returns a square of points, moved by (x, y). `moved` places a point elsewhere, or leaves it out if it is None."""
    places = {**{label: (px + x, py + y) for label, (px, py) in SQUARE.items()}, **moved}
    points = [
        Keypoint(label=label, point=PixelPoint(x_px=place[0], y_px=place[1]), visibility=VISIBLE)
        for label, place in places.items()
        if place is not None and label != absent
    ]
    if absent:
        points.append(Keypoint(label=absent, visibility=ABSENT))
    return Annotation(concept=concept, keypoints=Points(points=points))


def drawn(*answers: list[Annotation]) -> list[Submission]:
    return [Submission(annotator="abcdefg"[index], annotations=objects) for index, objects in enumerate(answers)]


def similarity(one: Annotation, other: Annotation) -> float:
    return 1 - distance(TASK.value([one]), TASK.value([other]))


def places(annotation: Annotation) -> dict[str, tuple[float, float]]:
    return {one.label: (one.point.x_px, one.point.y_px) for one in annotation.keypoints.points if one.HasField("point")}


def test_the_similarity_is_that_of_coco() -> None:
    """The scale of the square is 40 pixels, so that a distance of 4 is one standard deviation."""
    assert similarity(an_object(), an_object(4)) == pytest.approx(np.exp(-0.5))
    assert similarity(an_object(), an_object(nose=(4, 0))) == pytest.approx((3 + np.exp(-0.5)) / 4)
    assert similarity(an_object(), an_object(nose=None)) == 0.75
    assert similarity(an_object(), an_object(absent="nose")) == 0.75
    assert (
        similarity(an_object(), an_object(8)) == 0
    )  # exp(-2) is below the minimum, so that they are different objects


def test_the_points_of_one_object_are_merged_by_their_median() -> None:
    answers = drawn([an_object(0, 1)], [an_object(2, 0)], [an_object(1, 2, nose=(1, 9))])
    (merged,) = TASK.consensus(answers).annotations
    assert merged.concept == "dog"
    assert places(merged) == {"nose": (1, 1), "left": (41, 1), "right": (1, 41), "tail": (41, 41)}


@pytest.mark.parametrize(
    ("answers", "labels", "disputed"),
    [
        ([an_object(), an_object(nose=None)], "", True),
        ([an_object(), an_object(absent="nose")], "", True),
        ([an_object(), an_object(), an_object(nose=None)], "left nose right tail", False),
        ([an_object(), an_object(nose=None), an_object(nose=None)], "left right tail", False),
        ([an_object(), an_object(absent="nose"), an_object(absent="nose")], "left right tail", False),
    ],
)
def test_the_majority_decides_whether_a_point_is_there(answers: list[Annotation], labels: str, disputed: bool) -> None:
    consensus = TASK.consensus(drawn(*([one] for one in answers)))
    assert " ".join(sorted(label for one in consensus.annotations for label in places(one))) == labels
    assert consensus.is_disputed is disputed


def test_the_most_frequent_visibility_is_kept() -> None:
    answers = [an_object() for _ in range(3)]
    for one in answers[:2]:
        one.keypoints.points[0].visibility = OCCLUDED
    (merged,) = TASK.consensus(drawn(*([one] for one in answers))).annotations
    assert [point.visibility for point in merged.keypoints.points] == [OCCLUDED, VISIBLE, VISIBLE, VISIBLE]


def test_a_single_point_and_an_object_without_places_are_compared() -> None:
    dot = Annotation(concept="dog", keypoints=Points(points=[Keypoint(label="nose", point=PixelPoint(x_px=5, y_px=5))]))
    hidden = Annotation(concept="dog", keypoints=Points(points=[Keypoint(label="nose", visibility=ABSENT)]))
    assert similarity(dot, dot) == 1
    assert similarity(hidden, hidden) == 1
    assert similarity(dot, hidden) == 0
    assert TASK.consensus(drawn([dot, hidden], [hidden, dot])).annotators == ["a", "b"]


def test_nothing_is_an_answer() -> None:
    assert TASK.consensus(drawn([], [])).annotators == ["a", "b"]
    assert TASK.consensus(drawn([an_object()], [])).is_disputed


def test_nothing_is_not_accepted_if_every_annotator_drew_an_object_elsewhere() -> None:
    answers = [[an_object(x)] for x in (0, 300, 600)]
    consensus = TASK.consensus(drawn(*answers))
    assert not consensus.annotations
    assert [one.disputed for one in consensus.disagreements] == [True, True, True]
    assert [places(one.suggestion) for one in consensus.disagreements] == [places(one) for (one,) in answers]
    assert not TASK.consensus(drawn(*answers[:2], [])).is_disputed


coordinates = st.floats(0, 60)
point_sets = st.builds(
    an_object,
    coordinates,
    coordinates,
    st.sampled_from(["dog", "cat"]),
    nose=st.none() | st.tuples(coordinates, coordinates),
)
answers_of_points = st.lists(point_sets, max_size=5)


@settings(deadline=None)
@given(answers_of_points, answers_of_points)
def test_the_distance_is_symmetric_and_0_for_equal_answers(one: list[Annotation], other: list[Annotation]) -> None:
    found = distance(TASK.value(one), TASK.value(other))
    assert 0 <= found <= 1
    assert found == pytest.approx(distance(TASK.value(other), TASK.value(one)))
    assert distance(TASK.value(one), TASK.value(one)) == pytest.approx(0)


@settings(deadline=None)
@given(answers_of_points, answers_of_points, st.randoms(use_true_random=False))
def test_matching_does_not_depend_on_the_order(
    one: list[Annotation], other: list[Annotation], draw: random.Random
) -> None:
    shuffled = draw.sample(other, len(other))
    sums = [
        (len(found), pytest.approx(sum(found.values())))
        for found in (match(TASK.value(one), TASK.value(given), same_concept=False) for given in (other, shuffled))
    ]
    assert sums[0] == sums[1]

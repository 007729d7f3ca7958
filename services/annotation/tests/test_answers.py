"""Which annotations a campaign takes, and which shapes are none."""

import pytest
from annotation_builders import a_box, label
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from vesta_annotation.answers import ANSWER_BYTES_MAX, check_answer
from vesta_annotation.shapes import find_flaw
from vesta_common.errors import InvalidArgument
from vesta_contracts.annotation.v1 import Campaign
from vesta_contracts.common.v1 import (
    Annotation,
    Keyframe,
    Keypoint,
    Keypoints,
    Mask,
    PixelBox,
    PixelPoint,
    Polygon,
    Ring,
    RotatedBox,
    TemporalSegment,
    Track,
    Visibility,
)

VANS = Campaign(name="projects/acme/campaigns/vans", concepts=["van", "car"])
SOMETIMES_SEVERAL = Campaign(concepts=["van", "car"], multi_label=True)
WITHOUT_CONCEPTS = Campaign(name="projects/acme/campaigns/bare")

ZERO, ONE, TWO = Duration(), Duration(seconds=1), Duration(seconds=2)
SQUARE = PixelBox(x_max_px=10, y_max_px=10)
FLAT = PixelBox(x_max_px=10)
RING = Ring(points=[PixelPoint(), PixelPoint(x_px=9), PixelPoint(y_px=9)])


@pytest.mark.parametrize(
    ("campaign", "answer"),
    [
        (VANS, []),
        (VANS, [label("van")]),
        (VANS, [a_box("van"), a_box("van"), a_box("car")]),
        (VANS, [label("van"), a_box("car")]),
        (SOMETIMES_SEVERAL, [label("van"), label("car")]),
    ],
)
def test_what_is_asked_for_is_taken(campaign: Campaign, answer: list[Annotation]) -> None:
    check_answer(answer, campaign, "answer")


def test_a_campaign_whose_taxonomy_has_no_living_concept_takes_no_concept_and_still_none_of_them() -> None:
    check_answer([], WITHOUT_CONCEPTS, "answer")
    with pytest.raises(InvalidArgument) as raised:
        check_answer([label("zeppelin")], WITHOUT_CONCEPTS, "answer")
    assert raised.value.reason == "CONCEPT_NOT_ASKED"


def test_an_answer_that_no_event_could_carry_is_refused_before_it_is_kept() -> None:
    fine = Annotation(concept="van", mask=Mask(height_px=2000, width_px=1000, runs_px=[2] * 1_000_000))
    with pytest.raises(InvalidArgument, match=str(ANSWER_BYTES_MAX)):
        check_answer([fine], VANS, "answer")


@pytest.mark.parametrize(
    ("answer", "reason", "field"),
    [
        ([label("van"), label("bus")], "CONCEPT_NOT_ASKED", "answer[1]"),
        ([label("van"), label("car")], "LABEL_NOT_SINGLE", "answer"),
        ([label("van"), label("van")], "LABEL_NOT_SINGLE", "answer"),
        ([Annotation(concept="van")], "SHAPE_INVALID", "answer[0]"),
        ([a_box(), Annotation(concept="van", box=FLAT)], "SHAPE_INVALID", "answer[1]"),
    ],
)
def test_what_is_not_asked_for_is_refused_by_its_field(answer: list[Annotation], reason: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_answer(answer, VANS, "answer")
    assert raised.value.reason == reason
    assert [violation.field for violation in raised.value.violations] == [field]


@pytest.mark.parametrize(
    "shape",
    [
        {"box": SQUARE},
        {"box": PixelBox(x_min_px=-5, y_min_px=-5, x_max_px=1e5, y_max_px=1e5)},
        {"rotated_box": RotatedBox(width_px=1, height_px=2, angle_deg=-180)},
        {"polygon": Polygon(outline=RING, holes=[RING])},
        {"mask": Mask(height_px=2, width_px=3, runs_px=[0, 4, 2])},
        {"keypoints": Keypoints(points=[Keypoint(label="a", point=PixelPoint())])},
        {"keypoints": Keypoints(points=[Keypoint(label="a", visibility=Visibility.VISIBILITY_ABSENT)])},
        {"track": Track(keyframes=[Keyframe(offset=ZERO, box=SQUARE), Keyframe(offset=ONE)])},
        {"temporal_segment": TemporalSegment(start_offset=ZERO, end_offset=ONE)},
    ],
    ids=str,
)
def test_every_kind_of_shape_passes(shape: dict[str, object]) -> None:
    assert find_flaw(Annotation(concept="van", **shape)) == ""


@pytest.mark.parametrize(
    ("shape", "flaw"),
    [
        ({}, "has no shape"),
        ({"box": FLAT}, "without area"),
        ({"box": PixelBox(x_min_px=9, x_max_px=1, y_max_px=5)}, "without area"),
        ({"box": PixelBox(x_max_px=float("nan"), y_max_px=5)}, "not finite"),
        ({"rotated_box": RotatedBox(width_px=1)}, "without area"),
        ({"rotated_box": RotatedBox(width_px=float("inf"), height_px=1)}, "not finite"),
        ({"polygon": Polygon(holes=[RING])}, "without an outline"),
        ({"polygon": Polygon(outline=Ring(points=[PixelPoint(x_px=float("-inf"))]))}, "not finite"),
        ({"mask": Mask()}, "cover 0 pixels of 0"),
        ({"mask": Mask(height_px=2, width_px=2, runs_px=[3])}, "cover 3 pixels of 4"),
        ({"keypoints": Keypoints()}, "without points"),
        ({"keypoints": Keypoints(points=[Keypoint(label="knee")])}, "'knee' has no point"),
        ({"track": Track(keyframes=[Keyframe(offset=ONE), Keyframe(offset=ONE)])}, "do not rise"),
        ({"track": Track(keyframes=[Keyframe(offset=ONE), Keyframe(offset=TWO, box=FLAT)])}, "a box without area"),
        ({"temporal_segment": TemporalSegment(start_offset=ONE, end_offset=ONE)}, "does not end after"),
    ],
    ids=str,
)
def test_what_is_no_shape_is_found(shape: dict[str, object], flaw: str) -> None:
    assert flaw in find_flaw(Annotation(concept="van", **shape))


@given(st.tuples(*[st.floats()] * 4))
def test_a_box_has_no_flaw_exactly_where_it_has_a_finite_area(corners: tuple[float, float, float, float]) -> None:
    x_min, y_min, x_max, y_max = corners
    has_area = x_min < x_max and y_min < y_max and all(abs(one) < float("inf") for one in corners)
    box = PixelBox(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max)
    assert (find_flaw(Annotation(concept="van", box=box)) == "") is has_area

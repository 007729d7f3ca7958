"""A shape is made of numbers and covers something, or it is none."""

import math
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from vesta_common.media.shapes import find_flaw
from vesta_contracts.common.v1 import (
    Annotation,
    ImageLabel,
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

ZERO, ONE, TWO = Duration(), Duration(seconds=1), Duration(seconds=2)
SQUARE = PixelBox(x_max_px=10, y_max_px=10)
FLAT = PixelBox(x_max_px=10)
TRIANGLE = Ring(points=[PixelPoint(), PixelPoint(x_px=9), PixelPoint(y_px=9)])
LINE = Ring(points=TRIANGLE.points[:2])
ENDLESS = Ring(points=[PixelPoint(x_px=-math.inf), *LINE.points])


def flaw_of(**shape: Any) -> str:
    return find_flaw(Annotation(concept="van", **shape))


@pytest.mark.parametrize(
    "shape",
    [
        {"image_label": ImageLabel()},
        {"box": SQUARE},
        {"box": PixelBox(x_min_px=-5, y_min_px=-5, x_max_px=1e5, y_max_px=1e5)},
        {"rotated_box": RotatedBox(width_px=1, height_px=0.5, angle_deg=-180)},
        {"polygon": Polygon(outline=TRIANGLE)},
        {"polygon": Polygon(outline=TRIANGLE, holes=[TRIANGLE])},
        {"mask": Mask(height_px=2, width_px=3, runs_px=[0, 4, 2])},
        {"mask": Mask(height_px=2, width_px=3, runs_px=[6])},
        {"keypoints": Keypoints(points=[Keypoint(label="a", point=PixelPoint())])},
        {"keypoints": Keypoints(points=[Keypoint(label="a", visibility=Visibility.VISIBILITY_ABSENT)])},
        {"track": Track(keyframes=[Keyframe(offset=ZERO, box=SQUARE), Keyframe(offset=ONE)])},
        {"temporal_segment": TemporalSegment(end_offset=Duration(nanos=1))},
        {"temporal_segment": TemporalSegment(start_offset=ONE, end_offset=TWO)},
    ],
    ids=str,
)
def test_every_kind_of_shape_passes(shape: dict[str, Any]) -> None:
    assert flaw_of(**shape) == ""


@pytest.mark.parametrize(
    ("shape", "flaw"),
    [
        ({}, "has no shape"),
        ({"box": PixelBox()}, "without area"),
        ({"box": FLAT}, "without area"),
        ({"box": PixelBox(x_min_px=9, x_max_px=1, y_max_px=5)}, "without area"),
        ({"rotated_box": RotatedBox(width_px=1)}, "without area"),
        ({"polygon": Polygon()}, "without area"),
        ({"polygon": Polygon(outline=LINE)}, "without area"),
        ({"polygon": Polygon(holes=[TRIANGLE])}, "without area"),
        ({"polygon": Polygon(outline=TRIANGLE, holes=[LINE])}, "without area"),
        ({"mask": Mask()}, "cover 0 pixels of 0"),
        ({"mask": Mask(height_px=2, width_px=2, runs_px=[3])}, "cover 3 pixels of 4"),
        ({"keypoints": Keypoints()}, "without points"),
        ({"keypoints": Keypoints(points=[Keypoint(label="knee")])}, "'knee' has no point"),
        ({"track": Track(keyframes=[Keyframe(offset=ONE), Keyframe(offset=ONE)])}, "not in increasing order"),
        ({"track": Track(keyframes=[Keyframe(offset=TWO), Keyframe(offset=ONE)])}, "not in increasing order"),
        ({"track": Track(keyframes=[Keyframe(offset=ONE), Keyframe(offset=TWO, box=FLAT)])}, "a box without area"),
        ({"temporal_segment": TemporalSegment()}, "end is not after"),
        ({"temporal_segment": TemporalSegment(start_offset=TWO, end_offset=ONE)}, "end is not after"),
        (
            {"temporal_segment": TemporalSegment(start_offset=Duration(seconds=-1), end_offset=ONE)},
            "end is not after",
        ),
    ],
    ids=str,
)
def test_what_is_no_shape_is_found(shape: dict[str, Any], flaw: str) -> None:
    assert flaw in flaw_of(**shape)


@pytest.mark.parametrize(
    "shape",
    [
        {"box": PixelBox(x_max_px=math.nan, y_max_px=5)},
        {"rotated_box": RotatedBox(width_px=math.inf, height_px=1)},
        {"rotated_box": RotatedBox(width_px=1, height_px=math.nan)},
        {"rotated_box": RotatedBox(width_px=1, height_px=1, angle_deg=math.nan)},
        {"polygon": Polygon(outline=ENDLESS)},
        {"polygon": Polygon(outline=TRIANGLE, holes=[ENDLESS])},
        {"keypoints": Keypoints(points=[Keypoint(label="a", point=PixelPoint(y_px=math.nan))])},
        {"track": Track(keyframes=[Keyframe(box=PixelBox(x_max_px=math.inf, y_max_px=1))])},
    ],
    ids=str,
)
def test_a_number_that_is_none_is_found_however_deep_it_lies(shape: dict[str, Any]) -> None:
    assert "not finite" in flaw_of(**shape)


@given(st.tuples(*[st.floats()] * 4))
def test_a_box_has_no_flaw_exactly_where_it_has_a_finite_area(corners: tuple[float, ...]) -> None:
    x_min, y_min, x_max, y_max = corners
    has_area = x_min < x_max and y_min < y_max and all(map(math.isfinite, corners))
    box = PixelBox(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max)
    assert (flaw_of(box=box) == "") is has_area

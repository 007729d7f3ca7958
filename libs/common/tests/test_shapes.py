"""A shape covers something, or it is none."""

import math

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from vesta_common.shapes import has_extent
from vesta_contracts.common.v1 import (
    ImageLabel,
    Keypoints,
    Mask,
    PixelBox,
    PixelPoint,
    Polygon,
    Ring,
    RotatedBox,
    TemporalSegment,
    Track,
)

TRIANGLE = Ring(points=[PixelPoint(), PixelPoint(x_px=9), PixelPoint(y_px=9)])
LINE = Ring(points=TRIANGLE.points[:2])
ONE, TWO = Duration(seconds=1), Duration(seconds=2)


@pytest.mark.parametrize(
    "shape",
    [
        RotatedBox(width_px=4, height_px=0.5, angle_deg=-90),
        Polygon(outline=TRIANGLE),
        Polygon(outline=TRIANGLE, holes=[TRIANGLE]),
        TemporalSegment(end_offset=Duration(nanos=1)),
        TemporalSegment(start_offset=ONE, end_offset=TWO),
    ],
    ids=str,
)
def test_a_shape_that_covers_something_has_extent(shape: Message) -> None:
    assert has_extent(shape)


@pytest.mark.parametrize(
    "shape",
    [
        PixelBox(),
        RotatedBox(width_px=4),
        RotatedBox(width_px=math.nan, height_px=1),
        Polygon(),
        Polygon(outline=LINE),
        Polygon(holes=[TRIANGLE]),
        Polygon(outline=TRIANGLE, holes=[LINE]),
        TemporalSegment(),
        TemporalSegment(start_offset=TWO, end_offset=ONE),
        TemporalSegment(start_offset=Duration(seconds=-1), end_offset=ONE),
    ],
    ids=str,
)
def test_a_shape_that_covers_nothing_has_none(shape: Message) -> None:
    assert not has_extent(shape)


@pytest.mark.parametrize("shape", [ImageLabel(), Mask(), Keypoints(), Track()], ids=lambda shape: type(shape).__name__)
def test_a_shape_that_may_be_empty_has_extent_whatever_it_holds(shape: Message) -> None:
    assert has_extent(shape)


@given(st.tuples(*[st.floats()] * 4))
def test_a_box_has_extent_exactly_where_its_minima_lie_below_its_maxima(corners: tuple[float, ...]) -> None:
    x_min, y_min, x_max, y_max = corners
    box = PixelBox(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max)
    assert has_extent(box) is (x_min < x_max and y_min < y_max)

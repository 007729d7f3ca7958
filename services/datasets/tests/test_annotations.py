"""A shape that is accepted is sound and lies on the image."""

import math

import pytest
from google.protobuf.duration_pb2 import Duration
from vesta_common.errors import InvalidArgument
from vesta_contracts.common.v1 import (
    Annotation,
    Keyframe,
    Keypoint,
    Keypoints,
    Media,
    PixelBox,
    PixelPoint,
    Polygon,
    Ring,
    RotatedBox,
    TemporalSegment,
    Track,
    Visibility,
)
from vesta_contracts.datasets.v1 import Concept, Taxonomy
from vesta_datasets.annotations import check_annotations

TRIANGLE = Ring(points=[PixelPoint(x_px=x, y_px=y) for x, y in ((1, 1), (9, 1), (9, 9))])
LINE = Ring(points=TRIANGLE.points[:2])
SECOND = Duration(seconds=1)
SQUARE = PixelBox(x_min_px=1, y_min_px=1, x_max_px=9, y_max_px=9)


def turned(**numbers: float) -> RotatedBox:
    """A box in a corner of the image."""
    return RotatedBox(**{"x_center_px": 9, "y_center_px": 9, "width_px": 4, "height_px": 1, **numbers})


def check(**shape: object) -> None:
    annotation = Annotation(concept="van", **shape)  # type: ignore[arg-type]
    media = Media(width_px=64, height_px=48)
    check_annotations([annotation], Taxonomy(concepts=[Concept(id="van")]), media, multi_label=False, field="it")


@pytest.mark.parametrize(
    "shape",
    [
        {"box": PixelBox(x_min_px=9, y_min_px=1, x_max_px=2, y_max_px=9)},
        {"box": PixelBox(x_min_px=2, y_min_px=1, x_max_px=2, y_max_px=9)},
        {"rotated_box": turned(height_px=0)},
        {"polygon": Polygon()},
        {"polygon": Polygon(outline=LINE)},
        {"polygon": Polygon(outline=TRIANGLE, holes=[LINE])},
        {"temporal_segment": TemporalSegment(start_offset=SECOND, end_offset=SECOND)},
    ],
)
def test_a_shape_without_extent_is_refused(shape: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check(**shape)
    assert refused.value.reason == "SHAPE_INVALID"


@pytest.mark.parametrize(
    "shape",
    [
        {"box": PixelBox(x_max_px=math.nan, y_max_px=9)},
        {"rotated_box": turned(width_px=math.inf)},
        {"rotated_box": turned(height_px=math.inf)},
        {"rotated_box": turned(angle_deg=math.nan)},
        {"keypoints": Keypoints(points=[Keypoint(label="door", point=PixelPoint(x_px=math.nan))])},
    ],
    ids=str,
)
def test_a_shape_of_numbers_that_are_none_is_refused(shape: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match="not finite") as refused:
        check(**shape)
    assert refused.value.reason == "SHAPE_INVALID"


@pytest.mark.parametrize(
    ("shape", "flaw"),
    [
        ({"keypoints": Keypoints()}, "without points"),
        ({"keypoints": Keypoints(points=[Keypoint(label="door")])}, "'door' has no point"),
        ({"track": Track(keyframes=[Keyframe(offset=SECOND), Keyframe(offset=SECOND)])}, "do not rise"),
        ({"track": Track(keyframes=[Keyframe(offset=SECOND, box=SQUARE), Keyframe()])}, "do not rise"),
        ({"track": Track(keyframes=[Keyframe(box=PixelBox(x_max_px=9))])}, "without area"),
    ],
    ids=str,
)
def test_a_shape_that_no_campaign_would_take_is_refused_here_too(shape: dict[str, object], flaw: str) -> None:
    with pytest.raises(InvalidArgument, match=flaw) as refused:
        check(**shape)
    assert refused.value.reason == "SHAPE_INVALID"


@pytest.mark.parametrize(
    "shape",
    [
        {"box": PixelBox(x_max_px=66, y_max_px=9)},
        {"rotated_box": turned(x_center_px=-2)},
        {"rotated_box": turned(width_px=82)},
        {"rotated_box": turned(height_px=1e308, width_px=1e308)},
        {"keypoints": Keypoints(points=[Keypoint(label="door", point=PixelPoint(y_px=50))])},
        {"track": Track(keyframes=[Keyframe(), Keyframe(offset=SECOND, box=PixelBox(x_max_px=9, y_max_px=50))])},
    ],
    ids=str,
)
def test_a_shape_that_does_not_lie_on_the_image_is_refused(shape: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check(**shape)
    assert refused.value.reason == "SHAPE_OUTSIDE_IMAGE"


@pytest.mark.parametrize(
    "shape",
    [
        {"box": SQUARE},
        {"rotated_box": turned()},
        {"rotated_box": turned(x_center_px=32, y_center_px=24, width_px=80, angle_deg=36.87)},  # along the diagonal
        {"rotated_box": turned(x_center_px=1, y_center_px=1, height_px=4, angle_deg=45)},  # two corners beyond the edge
        {"polygon": Polygon(outline=TRIANGLE)},
        {"keypoints": Keypoints(points=[Keypoint(label="door", visibility=Visibility.VISIBILITY_ABSENT)])},
        {"track": Track(keyframes=[Keyframe(box=SQUARE), Keyframe(offset=SECOND)])},
        {"temporal_segment": TemporalSegment(end_offset=SECOND)},
    ],
    ids=str,
)
def test_a_sound_shape_on_the_image_is_accepted(shape: dict[str, object]) -> None:
    check(**shape)

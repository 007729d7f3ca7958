"""Annotations are sound, lie on the image, and say what the taxonomy knows."""

import math
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from vesta_common.errors import InvalidArgument
from vesta_common.media.annotations import ANNOTATIONS_BYTES_MAX, Terms, check_annotations, check_shapes
from vesta_contracts.common.v1 import (
    Annotation,
    ImageLabel,
    Keyframe,
    Keypoint,
    Keypoints,
    Mask,
    Media,
    PixelBox,
    PixelPoint,
    Polygon,
    Ring,
    RotatedBox,
    TaskType,
    TemporalSegment,
    Track,
    Visibility,
)
from vesta_contracts.datasets.v1 import Concept, Taxonomy

TRIANGLE = Ring(points=[PixelPoint(x_px=x, y_px=y) for x, y in ((1, 1), (9, 1), (9, 9))])
LINE = Ring(points=TRIANGLE.points[:2])
SECOND = Duration(seconds=1)
SQUARE = PixelBox(x_min_px=1, y_min_px=1, x_max_px=9, y_max_px=9)
VEHICLES = Taxonomy(
    name="projects/acme/taxonomies/vehicles",
    concepts=[Concept(id="van", keypoints=["door", "wheel"]), Concept(id="car"), Concept(id="tram", retired=True)],
)
IMAGE = Media(width_px=64, height_px=48, mime_type="image/jpeg")
CLIP = Media(width_px=64, height_px=48, mime_type="video/mp4")


def turned(**numbers: float) -> RotatedBox:
    """A box in a corner of the image."""
    return RotatedBox(**{"x_center_px": 9, "y_center_px": 9, "width_px": 4, "height_px": 1, **numbers})


def a_track(*keyframes: Keyframe) -> Track:
    return Track(track_id="1", keyframes=keyframes)


def points(*entries: Keypoint) -> Keypoints:
    return Keypoints(points=entries)


def label(concept: str) -> Annotation:
    return Annotation(concept=concept, image_label=ImageLabel())


def ring(*corners: tuple[float, float]) -> Ring:
    return Ring(points=[PixelPoint(x_px=x, y_px=y) for x, y in corners])


def check(
    *annotations: Annotation,
    media: Media = IMAGE,
    task_type: TaskType.ValueType = TaskType.TASK_TYPE_CLASSIFICATION,
    asked: Any = None,
) -> None:
    check_annotations(annotations, media, Terms(VEHICLES, task_type, asked, "projects/acme/campaigns/c"), "it")


def refusal(*annotations: Annotation, **terms: Any) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as refused:
        check(*annotations, **terms)
    assert str(refused.value).startswith(refused.value.violations[0].field)
    return refused.value


def refusal_of(shape: dict[str, Any], **terms: Any) -> tuple[str, str]:
    """The reason and the field."""
    found = refusal(label("van"), Annotation(concept="van", **shape), **terms)
    return found.reason, found.violations[0].field


@pytest.mark.parametrize(
    "shape",
    [
        {"box": PixelBox(x_min_px=9, y_min_px=1, x_max_px=2, y_max_px=9)},
        {"box": PixelBox(x_min_px=2, y_min_px=1, x_max_px=2, y_max_px=9)},
        {"rotated_box": turned(height_px=0)},
        {"polygon": Polygon()},
        {"keypoints": Keypoints()},
        {"keypoints": points(Keypoint(label="door"))},
        {"keypoints": points(*[Keypoint(label="door", point=PixelPoint())] * 2)},
    ],
    ids=str,
)
def test_a_shape_without_extent_is_refused(shape: dict[str, Any]) -> None:
    assert refusal_of(shape) == ("SHAPE_INVALID", "it[1]")


@pytest.mark.parametrize(
    "shape",
    [
        {"track": a_track(Keyframe(offset=SECOND), Keyframe(offset=SECOND))},
        {"track": a_track(Keyframe(offset=SECOND, box=SQUARE), Keyframe())},
        {"track": a_track(Keyframe(box=PixelBox(x_max_px=9)))},
        {"temporal_segment": TemporalSegment(start_offset=SECOND, end_offset=SECOND)},
    ],
    ids=str,
)
def test_a_shape_of_a_clip_that_does_not_go_on_is_refused(shape: dict[str, Any]) -> None:
    assert refusal_of(shape, media=CLIP) == ("SHAPE_INVALID", "it[1]")


@pytest.mark.parametrize(
    ("shape", "field"),
    [
        ({"box": PixelBox(x_max_px=math.nan, y_max_px=9)}, "box.x_max_px"),
        ({"rotated_box": turned(width_px=math.inf)}, "rotated_box.width_px"),
        ({"rotated_box": turned(angle_deg=math.nan)}, "rotated_box.angle_deg"),
        ({"polygon": Polygon(outline=LINE)}, "polygon.outline.points"),
        ({"polygon": Polygon(outline=TRIANGLE, holes=[LINE])}, "polygon.holes[0].points"),
        (
            {"keypoints": points(Keypoint(label="door", point=PixelPoint(x_px=math.nan)))},
            "keypoints.points[0].point.x_px",
        ),
        ({"box": SQUARE, "score": 2}, "score"),
    ],
    ids=str,
)
def test_the_rules_of_the_fields_hold_everywhere(shape: dict[str, Any], field: str) -> None:
    assert refusal_of(shape) == ("FIELD_INVALID", f"it[1].{field}")


@pytest.mark.parametrize(
    "shape",
    [
        {"box": PixelBox(x_max_px=66, y_max_px=9)},
        {"box": PixelBox(x_min_px=64.2, x_max_px=64.9, y_max_px=9)},
        {"rotated_box": turned(x_center_px=-2)},
        {"rotated_box": turned(width_px=82)},
        {"rotated_box": turned(height_px=1e308, width_px=1e308)},
        {"polygon": Polygon(outline=Ring(points=[*TRIANGLE.points, PixelPoint(x_px=9, y_px=50)]))},
        {"keypoints": points(Keypoint(label="door", point=PixelPoint(y_px=50)))},
    ],
    ids=str,
)
def test_a_shape_that_does_not_lie_on_the_image_is_refused(shape: dict[str, Any]) -> None:
    assert refusal_of(shape) == ("SHAPE_OUTSIDE_IMAGE", "it[1]")


def test_a_box_of_a_track_lies_on_the_clip() -> None:
    outside = a_track(Keyframe(), Keyframe(offset=SECOND, box=PixelBox(x_max_px=9, y_max_px=50)))
    assert refusal_of({"track": outside}, media=CLIP)[0] == "SHAPE_OUTSIDE_IMAGE"


@pytest.mark.parametrize(
    "shape",
    [
        {"image_label": ImageLabel()},
        {"box": SQUARE},
        {"box": PixelBox(x_min_px=-0.5, x_max_px=64.5, y_max_px=48)},
        {"rotated_box": turned()},
        {"rotated_box": turned(x_center_px=32, y_center_px=24, width_px=80, angle_deg=36.87)},  # along the diagonal
        {"rotated_box": turned(x_center_px=1, y_center_px=1, height_px=4, angle_deg=45)},  # two corners beyond the edge
        {"polygon": Polygon(outline=TRIANGLE)},
        {"mask": Mask(width_px=64, height_px=48, runs_px=[64 * 48 - 1, 1])},
        {"polygon": Polygon(outline=ring((0, 0), (20, 20), (40, 0), (40, 40), (20, 20), (0, 40)))},
        {"keypoints": points(Keypoint(label="door", visibility=Visibility.VISIBILITY_ABSENT))},
        {"keypoints": points(*[Keypoint(label=name, point=PixelPoint()) for name in ("door", "wheel")])},
    ],
    ids=str,
)
def test_a_sound_shape_on_the_image_is_accepted(shape: dict[str, Any]) -> None:
    check(Annotation(concept="van", **shape))


@pytest.mark.parametrize(
    "shape",
    [
        {"track": a_track(Keyframe(box=SQUARE), Keyframe(offset=SECOND))},
        {"temporal_segment": TemporalSegment(end_offset=SECOND)},
    ],
    ids=str,
)
def test_what_happens_in_time_is_for_clips(shape: dict[str, Any]) -> None:
    check(Annotation(concept="van", **shape), media=CLIP)
    assert refusal_of(shape) == ("SHAPE_NEEDS_CLIP", "it[1]")


def test_an_annotation_says_where() -> None:
    assert refusal_of({}) == ("SHAPE_MISSING", "it[1]")


def test_a_mask_covers_exactly_the_image() -> None:
    assert refusal_of({"mask": Mask(width_px=48, height_px=64, runs_px=[64 * 48])}) == ("MASK_SIZE_MISMATCH", "it[1]")
    assert refusal_of({"mask": Mask(width_px=64, height_px=48, runs_px=[7])}) == ("MASK_RUNS_INVALID", "it[1]")


def test_keypoints_have_the_names_of_the_concept_s_skeleton() -> None:
    elbow = points(Keypoint(label="elbow", point=PixelPoint()))
    assert refusal_of({"keypoints": elbow}) == ("KEYPOINT_UNKNOWN", "it[1]")
    with pytest.raises(InvalidArgument, match="'car' has no skeleton") as refused:
        check(Annotation(concept="car", keypoints=points(Keypoint(label="door", point=PixelPoint()))))
    assert refused.value.reason == "KEYPOINT_UNKNOWN"


def test_concepts_are_those_of_the_taxonomy_retired_ones_too() -> None:
    check(label("tram"))
    found = refusal(label("airship"))
    assert (found.reason, found.violations[0].field) == ("CONCEPT_UNKNOWN", "it[0]")


def test_an_answer_has_what_is_asked_and_what_the_taxonomy_still_knows() -> None:
    check(label("car"), asked=["car"])
    assert refusal(label("van"), asked=["car"]).reason == "CONCEPT_NOT_IN_CAMPAIGN"
    assert refusal(label("van"), asked=[]).reason == "CONCEPT_NOT_IN_CAMPAIGN"
    assert refusal(label("airship"), asked=["airship"]).reason == "CONCEPT_UNKNOWN"
    check(asked=[])


def test_where_one_label_is_allowed_boxes_are_still_free() -> None:
    check(label("van"), label("van"), Annotation(concept="car", box=SQUARE))
    check(label("van"), label("car"), task_type=TaskType.TASK_TYPE_MULTI_LABEL)
    found = refusal(label("van"), label("car"))
    assert (found.reason, found.violations[0].field) == ("LABEL_NOT_SINGLE", "it")


def test_annotations_above_the_limit_of_an_item_are_rejected() -> None:
    large = Media(width_px=20_000, height_px=20_000)
    fine = Annotation(concept="van", mask=Mask(height_px=20_000, width_px=20_000, runs_px=[100] * 4_000_000))
    check(fine, media=large)
    with pytest.raises(InvalidArgument, match=str(ANNOTATIONS_BYTES_MAX)) as refused:
        check(fine, fine, fine, media=large)
    assert refused.value.reason == "ANNOTATIONS_TOO_LARGE"


def test_shapes_alone_are_checked_whatever_their_concepts() -> None:
    check_shapes([label("airship")], IMAGE, TaskType.TASK_TYPE_CLASSIFICATION, "it")
    with pytest.raises(InvalidArgument):
        check_shapes(
            [Annotation(concept="airship", box=PixelBox(x_max_px=99, y_max_px=9))],
            IMAGE,
            TaskType.TASK_TYPE_DETECTION,
            "it",
        )


@pytest.mark.parametrize(
    "polygon",
    [
        Polygon(outline=ring((0, 0), (40, 40), (40, 0), (0, 40))),
        Polygon(outline=ring((0, 0), (40, 0), (20, 0))),
        Polygon(outline=ring((5, 5), (5, 5), (5, 5))),
        Polygon(outline=ring((0, 0), (9, 0), (0, 9)), holes=[ring((20, 20), (29, 20), (20, 29))]),
        Polygon(outline=ring((0, 0), (9, 0), (0, 9)), holes=[ring((0, 0), (9, 0), (0, 9))]),
    ],
    ids=str,
)
def test_a_polygon_whose_rings_cross_is_rejected(polygon: Polygon) -> None:
    assert refusal_of({"polygon": polygon}) == ("POLYGON_CROSSED", "it[1]")


def test_a_mask_without_pixels_is_rejected() -> None:
    for runs in ([64 * 48], [64 * 40, 0, 64 * 8]):
        assert refusal_of({"mask": Mask(width_px=64, height_px=48, runs_px=runs)}) == ("MASK_EMPTY", "it[1]")


def a_mask(concept: str, *runs: int) -> Annotation:
    return Annotation(concept=concept, mask=Mask(width_px=64, height_px=48, runs_px=[*runs, 64 * 48 - sum(runs)]))


def test_each_pixel_of_a_map_has_one_concept() -> None:
    pixels = TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION
    check(a_mask("van", 0, 10), a_mask("car", 10, 10), task_type=pixels)
    check(task_type=pixels)
    assert refusal(a_mask("van", 0, 9), a_mask("van", 20, 9), task_type=pixels).reason == "MASK_NOT_SINGLE"
    overlapping = refusal(a_mask("van", 0, 10), a_mask("car", 7, 10), task_type=pixels)
    assert (overlapping.reason, "3 pixels" in overlapping.message) == ("MASKS_OVERLAP", True)
    check(a_mask("van", 0, 10), a_mask("car", 7, 10), task_type=TaskType.TASK_TYPE_INSTANCE_SEGMENTATION)


@pytest.mark.parametrize(
    ("task_type", "shape"),
    [
        (TaskType.TASK_TYPE_DETECTION, {"box": PixelBox(x_max_px=9, y_max_px=9)}),
        (TaskType.TASK_TYPE_INSTANCE_SEGMENTATION, {"polygon": Polygon(outline=ring((0, 0), (9, 0), (0, 9)))}),
        (TaskType.TASK_TYPE_KEYPOINTS, {"keypoints": points(Keypoint(label="door", point=PixelPoint()))}),
    ],
)
def test_the_same_object_twice_is_rejected(task_type: TaskType.ValueType, shape: dict[str, Any]) -> None:
    once, again = Annotation(concept="van", **shape), Annotation(concept="van", attributes={"wet": "yes"}, **shape)
    found = refusal(once, again, task_type=task_type)
    assert (found.reason, found.violations[0].field) == ("ANNOTATION_DUPLICATE", "it[1]")
    again.concept = "car"
    check(once, task_type=task_type)

"""Validates annotation shapes: finite coordinates, positive areas and durations, points inside the image. Pure."""

import math
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from vesta_contracts.common.v1 import (
    Annotation,
    Keypoints,
    Mask,
    PixelBox,
    PixelPoint,
    Polygon,
    RotatedBox,
    TemporalSegment,
    Track,
    Visibility,
)

RING_POINTS_MIN = 3
EDGE_TOLERANCE_PX = 1.0
_FRACTIONS = {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}


def find_flaw(annotation: Annotation) -> str:
    """Returns what is wrong with the annotation's shape, as the end of a sentence that begins with "annotation"; empty if it is valid.

    A mask, keypoints or a track may state that nothing is visible. Every other shape except an image label must cover something.
    `check_shapes` rejects masks without pixels and polygons whose rings cross.
    """
    kind = annotation.WhichOneof("shape")
    if kind is None:
        return "has no shape; for the image as a whole set image_label"
    shape = getattr(annotation, kind)
    flaw = _flaw_of(shape) if _is_finite(shape) else "with a coordinate that is not finite"
    article = "" if kind == "keypoints" else "a "
    return f"has {article}{kind} {flaw}" if flaw else ""


def lies_on(annotation: Annotation, width_px: int, height_px: int) -> bool:
    """Returns True if a valid shape is inside the image, within `EDGE_TOLERANCE_PX`. A box must overlap the image.

    The corners of a rotated box may be outside the image, as they are for an object in a corner of the image. Its sides must not exceed the
    image's diagonal, the longest an object in the image can be.
    """
    turned = annotation.rotated_box
    longest_px = math.hypot(width_px, height_px) + EDGE_TOLERANCE_PX
    covers = all(
        box.x_min_px < width_px and box.y_min_px < height_px and box.x_max_px > 0 and box.y_max_px > 0
        for box in _boxes(annotation)
    )
    return (
        covers
        and max(turned.width_px, turned.height_px) <= longest_px
        and all(_is_on(point, width_px, height_px) for point in _points(annotation))
    )


def _boxes(annotation: Annotation) -> Iterable[PixelBox]:
    """Returns the boxes of a box annotation or of a track."""
    if annotation.HasField("box"):
        yield annotation.box
    yield from (keyframe.box for keyframe in annotation.track.keyframes if keyframe.HasField("box"))


def _points(annotation: Annotation) -> Iterable[PixelPoint]:
    """Returns the points that bound a shape; for a rotated box, its centre."""
    for box in _boxes(annotation):
        yield PixelPoint(x_px=box.x_min_px, y_px=box.y_min_px)
        yield PixelPoint(x_px=box.x_max_px, y_px=box.y_max_px)
    if annotation.HasField("rotated_box"):
        yield PixelPoint(x_px=annotation.rotated_box.x_center_px, y_px=annotation.rotated_box.y_center_px)
    for ring in (annotation.polygon.outline, *annotation.polygon.holes):
        yield from ring.points
    yield from (point.point for point in annotation.keypoints.points if point.HasField("point"))


def _is_on(point: PixelPoint, width_px: int, height_px: int) -> bool:
    return (
        -EDGE_TOLERANCE_PX <= point.x_px <= width_px + EDGE_TOLERANCE_PX
        and -EDGE_TOLERANCE_PX <= point.y_px <= height_px + EDGE_TOLERANCE_PX
    )


def _is_finite(message: Message) -> bool:
    """Returns True if all numbers in a message and its nested messages are finite."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        if field.message_type and not all(map(_is_finite, values)):
            return False
        if field.cpp_type in _FRACTIONS and not all(map(math.isfinite, values)):
            return False
    return True


def _flaw_of(shape: Message) -> str:
    """Returns what is wrong with a shape, as text to follow the shape's name."""
    match shape:
        case PixelBox():
            has_area = shape.x_min_px < shape.x_max_px and shape.y_min_px < shape.y_max_px
            return "" if has_area else "without area; each minimum must be less than its maximum"
        case RotatedBox():
            has_area = shape.width_px > 0 and shape.height_px > 0
            return "" if has_area else "without area; width and height must be greater than 0"
        case Polygon():
            has_inside = all(len(ring.points) >= RING_POINTS_MIN for ring in (shape.outline, *shape.holes))
            return "" if has_inside else f"without area; each ring must have at least {RING_POINTS_MIN} points"
        case TemporalSegment():
            lasts = 0 <= shape.start_offset.ToNanoseconds() < shape.end_offset.ToNanoseconds()
            return "" if lasts else "whose end is not after its start"
        case Mask():
            covered, pixels = sum(shape.runs_px), shape.height_px * shape.width_px
            return (
                ""
                if pixels and covered == pixels
                else f"whose runs cover {covered} pixels of {pixels}; they must cover all"
            )
        case Keypoints():
            return _flaw_of_keypoints(shape)
        case Track():
            return _flaw_of_track(shape)
        case _:
            return ""


def _flaw_of_keypoints(keypoints: Keypoints) -> str:
    counts = Counter(point.label for point in keypoints.points)
    if twice := [label for label, count in counts.items() if count > 1]:
        return f"in which {twice[0]!r} appears twice; leave one of them out"
    for point in keypoints.points:
        if not point.HasField("point") and point.visibility != Visibility.VISIBILITY_ABSENT:
            return f"in which {point.label!r} has no point; use VISIBILITY_ABSENT if it is not in the image"
    return "" if keypoints.points else "without points; leave the annotation out"


def _flaw_of_track(track: Track) -> str:
    offsets = [keyframe.offset.ToNanoseconds() for keyframe in track.keyframes]
    if any(earlier >= later for earlier, later in pairwise(offsets)):
        return "whose keyframes are not in increasing order of time"
    flaws = (_flaw_of(keyframe.box) for keyframe in track.keyframes if keyframe.HasField("box"))
    return next((f"with a box {flaw}" for flaw in flaws if flaw), "")

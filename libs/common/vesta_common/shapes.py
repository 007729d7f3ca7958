"""What can be wrong with a shape whatever the image is: numbers that are none, areas and stretches without extent. Pure."""

import math
from itertools import pairwise

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from vesta_contracts.common.v1 import (
    Annotation,
    Keypoints,
    Mask,
    PixelBox,
    Polygon,
    RotatedBox,
    TemporalSegment,
    Track,
    Visibility,
)

RING_POINTS_MIN = 3
_FRACTIONS = {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}


def find_flaw(annotation: Annotation) -> str:
    """What is wrong with the annotation's shape, to follow the word "annotation"; empty where nothing is.

    A mask, keypoints and a track may say that nothing is to be seen; every other shape but an image label covers something.
    """
    kind = annotation.WhichOneof("shape")
    if kind is None:
        return "has no shape; for the image as a whole set image_label"
    shape = getattr(annotation, kind)
    flaw = _flaw_of(shape) if _is_finite(shape) else "with a coordinate that is not finite"
    return f"has a {kind} {flaw}" if flaw else ""


def _is_finite(message: Message) -> bool:
    """Whether every number in a message, however deep, is finite."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        if field.message_type and not all(map(_is_finite, values)):
            return False
        if field.cpp_type in _FRACTIONS and not all(map(math.isfinite, values)):
            return False
    return True


def _flaw_of(shape: Message) -> str:
    """To follow the name of the shape."""
    match shape:
        case PixelBox():
            has_area = shape.x_min_px < shape.x_max_px and shape.y_min_px < shape.y_max_px
            return "" if has_area else "without area; each minimum must lie below its maximum"
        case RotatedBox():
            has_area = shape.width_px > 0 and shape.height_px > 0
            return "" if has_area else "without area; width and height must be above 0"
        case Polygon():
            has_inside = all(len(ring.points) >= RING_POINTS_MIN for ring in (shape.outline, *shape.holes))
            return "" if has_inside else f"without an inside; each ring must have {RING_POINTS_MIN} points"
        case TemporalSegment():
            lasts = 0 <= shape.start_offset.ToNanoseconds() < shape.end_offset.ToNanoseconds()
            return "" if lasts else "that does not end after it starts"
        case Mask():
            covered, pixels = sum(shape.runs_px), shape.height_px * shape.width_px
            return "" if pixels and covered == pixels else f"whose runs cover {covered} pixels of {pixels}"
        case Keypoints():
            return _flaw_of_keypoints(shape)
        case Track():
            return _flaw_of_track(shape)
        case _:
            return ""


def _flaw_of_keypoints(keypoints: Keypoints) -> str:
    for point in keypoints.points:
        if not point.HasField("point") and point.visibility != Visibility.VISIBILITY_ABSENT:
            return f"in which {point.label!r} has no point; say VISIBILITY_ABSENT where it is not in the image"
    return "" if keypoints.points else "without points"


def _flaw_of_track(track: Track) -> str:
    offsets = [keyframe.offset.ToNanoseconds() for keyframe in track.keyframes]
    if any(earlier >= later for earlier, later in pairwise(offsets)):
        return "whose keyframes do not rise in time"
    flaws = (_flaw_of(keyframe.box) for keyframe in track.keyframes if keyframe.HasField("box"))
    return next((f"with a box {flaw}" for flaw in flaws if flaw), "")

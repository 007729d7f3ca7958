"""What can be wrong with a shape whatever the image is: numbers that are none, areas and stretches without extent. Pure."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

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


def find_flaw(annotation: Annotation) -> str:
    """What is wrong with the annotation's shape, to follow the word "annotation"; empty where nothing is."""
    kind = annotation.WhichOneof("shape")
    if kind is None:
        return "has no shape; for the image as a whole set image_label"
    shape = getattr(annotation, kind)
    if not _is_finite(shape):
        return f"has a {kind} with a coordinate that is not finite"
    flaw = _FLAWS[kind](shape)
    return f"has a {kind} {flaw}" if flaw else ""


def _is_finite(message: Message) -> bool:
    """Whether every number in a message, however deep, is finite."""
    for field, value in message.ListFields():
        for one in value if field.is_repeated else (value,):
            if isinstance(one, Message):
                if not _is_finite(one):
                    return False
            elif isinstance(one, float) and not math.isfinite(one):
                return False
    return True


def _box(box: PixelBox) -> str:
    has_area = box.x_min_px < box.x_max_px and box.y_min_px < box.y_max_px
    return "" if has_area else "without area; each minimum must lie below its maximum"


def _rotated_box(box: RotatedBox) -> str:
    return "" if box.width_px > 0 and box.height_px > 0 else "without area; width and height must be above 0"


def _polygon(polygon: Polygon) -> str:
    return "" if polygon.HasField("outline") else "without an outline"


def _mask(mask: Mask) -> str:
    covered, pixels = sum(mask.runs_px), mask.height_px * mask.width_px
    return "" if pixels and covered == pixels else f"whose runs cover {covered} pixels of {pixels}"


def _keypoints(keypoints: Keypoints) -> str:
    for point in keypoints.points:
        if not point.HasField("point") and point.visibility != Visibility.VISIBILITY_ABSENT:
            return f"in which {point.label!r} has no point; say VISIBILITY_ABSENT where it is not in the image"
    return "" if keypoints.points else "without points"


def _track(track: Track) -> str:
    offsets = [keyframe.offset.ToNanoseconds() for keyframe in track.keyframes]
    if any(earlier >= later for earlier, later in pairwise(offsets)):
        return "whose keyframes do not rise in time"
    flaws = (_box(keyframe.box) for keyframe in track.keyframes if keyframe.HasField("box"))
    return next((f"with a box {flaw}" for flaw in flaws if flaw), "")


def _temporal_segment(segment: TemporalSegment) -> str:
    start, end = segment.start_offset.ToNanoseconds(), segment.end_offset.ToNanoseconds()
    return "" if 0 <= start < end else "that does not end after it starts"


_FLAWS: dict[str, Callable[[Any], str]] = {
    "image_label": lambda _: "",
    "box": _box,
    "rotated_box": _rotated_box,
    "polygon": _polygon,
    "mask": _mask,
    "keypoints": _keypoints,
    "track": _track,
    "temporal_segment": _temporal_segment,
}

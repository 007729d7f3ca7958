"""What can be wrong with a shape whatever the image is: numbers that are none, areas and stretches without extent. Pure."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from google.protobuf.message import Message
from vesta_common.shapes import has_extent
from vesta_contracts.common.v1 import Annotation, Keypoints, Mask, Track, Visibility

_WITHOUT_EXTENT = {
    "box": "without area; each minimum must lie below its maximum",
    "rotated_box": "without area; width and height must be above 0",
    "polygon": "without an outline",  # one of fewer than three points is refused with the request already
    "temporal_segment": "that does not end after it starts",
}


def find_flaw(annotation: Annotation) -> str:
    """What is wrong with the annotation's shape, to follow the word "annotation"; empty where nothing is."""
    kind = annotation.WhichOneof("shape")
    if kind is None:
        return "has no shape; for the image as a whole set image_label"
    shape = getattr(annotation, kind)
    if not _is_finite(shape):
        return f"has a {kind} with a coordinate that is not finite"
    if not has_extent(shape):
        return f"has a {kind} {_WITHOUT_EXTENT[kind]}"
    flaw = _FLAWS[kind](shape) if kind in _FLAWS else ""
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
    flat = any(keyframe.HasField("box") and not has_extent(keyframe.box) for keyframe in track.keyframes)
    return f"with a box {_WITHOUT_EXTENT['box']}" if flat else ""


_FLAWS: dict[str, Callable[[Any], str]] = {"mask": _mask, "keypoints": _keypoints, "track": _track}
"""What else can be wrong with a shape than that it has no extent."""

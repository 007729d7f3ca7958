"""When a shape of the contracts covers anything, whatever image it lies on. Pure."""

from google.protobuf.message import Message
from vesta_contracts.common.v1 import PixelBox, Polygon, RotatedBox, TemporalSegment

RING_POINTS_MIN = 3


def has_extent(shape: Message) -> bool:
    """Whether a box has area, every ring of a polygon has an inside, a stretch of time lasts.

    True of every other shape: an image label is everywhere, and masks, keypoints and tracks may say that nothing is to be seen.
    """
    match shape:
        case PixelBox():
            return shape.x_min_px < shape.x_max_px and shape.y_min_px < shape.y_max_px
        case RotatedBox():
            return shape.width_px > 0 and shape.height_px > 0
        case Polygon():
            return all(len(ring.points) >= RING_POINTS_MIN for ring in (shape.outline, *shape.holes))
        case TemporalSegment():
            return 0 <= shape.start_offset.ToNanoseconds() < shape.end_offset.ToNanoseconds()
        case _:
            return True

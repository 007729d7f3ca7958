"""The time that a person needs to annotate images, in seconds: means of published measurements.

They compare images and selections with each other, and predict no annotator.
"""

from typing import Final

LOOK_SECONDS: Final = 2.0
"""For a look at the image and the answer to one question about it."""
CONFIRM_SECONDS: Final = 1.6
"""For the check of a suggested box (Papadopoulos et al., "We don't need no bounding-boxes", CVPR 2016)."""
DRAW_BOX_SECONDS: Final = 7.0
"""For a box by its four extreme points (Papadopoulos et al., "Extreme clicking for efficient object annotation", ICCV 2017)."""

DRAW_OUTLINE_SECONDS: Final = 79.2
"""For the outline of an object (Lin et al., "Microsoft COCO: common objects in context", ECCV 2014: 22 hours for 1,000 outlines)."""
DRAW_POINTS_SECONDS: Final = 16.8
"""For 17 named points, the number of those of a person in COCO: 2.4 s for the first and 0.9 s for each other (Bearman et al., "What's the
point: semantic segmentation with point supervision", ECCV 2016)."""


def drawing_seconds(image_count: float, object_count: float, draw_seconds: float | None) -> float:
    """Returns the time to annotate images without suggestions: a look at each, and the drawing of each object.

    Args:
        draw_seconds: for one object; None for labels of whole images, which are given at a look.
    """
    return LOOK_SECONDS * image_count + (draw_seconds or 0.0) * object_count

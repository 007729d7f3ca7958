"""The time that a person is expected to need for the annotations of an image, in seconds.

The constants are means of published measurements; they compare images with each other, and predict no annotator. Of an object, the model's
score is the probability that its annotation can be confirmed; otherwise it is drawn.
"""

from collections.abc import Iterable
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


def seconds_of_objects(suggested: Iterable[float], others: Iterable[float], draw_seconds: float) -> float:
    """Returns the expected time for an image with objects.

    Args:
        suggested: the scores of the objects that the annotator sees. Each is confirmed, and is drawn again with the probability 1 - score.
        others: the scores of possible objects that the annotator does not see. Each is drawn with the probability of its score.
        draw_seconds: for one object.
    """
    shown = sum(CONFIRM_SECONDS + draw_seconds * (1.0 - score) for score in suggested)
    return LOOK_SECONDS + shown + draw_seconds * sum(others)

"""The time that a person is expected to need for the annotations of an image, in seconds.

Of an object, the model's score is the probability that its annotation can be confirmed; otherwise it is drawn.
"""

from collections.abc import Iterable

from vesta_common.media.annotation_cost import CONFIRM_SECONDS, LOOK_SECONDS


def seconds_of_objects(suggested: Iterable[float], others: Iterable[float], draw_seconds: float) -> float:
    """Returns the expected time for an image with objects.

    Args:
        suggested: the scores of the objects that the annotator sees. Each is confirmed, and is drawn again with the probability 1 - score.
        others: the scores of possible objects that the annotator does not see. Each is drawn with the probability of its score.
        draw_seconds: for one object.
    """
    shown = sum(CONFIRM_SECONDS + draw_seconds * (1.0 - score) for score in suggested)
    return LOOK_SECONDS + shown + draw_seconds * sum(others)

"""Derives concepts and certainty from prediction scores. Pure.

Serving decides which concepts are predicted and marks their scores. This module does not decide again.
"""

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.common.v1 import Prediction

Floats = NDArray[np.float32]


def predicted_concepts(scores: Prediction) -> list[str]:
    """Returns the concepts by which a prediction is found: all that a multi-label model predicts, otherwise the best one."""
    is_multi_label = any(score.HasField("threshold") for score in scores.scores)
    found = [score for score in scores.scores if score.predicted] if is_multi_label else scores.scores[:1]
    return [score.concept for score in found]


def share_to_certainty(scores: Floats, thresholds: Floats) -> Floats:
    """Returns the certainty of each score in [0, 1].

    Certainty is the distance of the score from its threshold, as a share of the distance from the threshold to 1, or to 0 for scores below
    the threshold. A score of 0 or 1 is therefore certain for any threshold. With absolute distances, every score below a threshold of 0.05
    would stay uncertain.

    Args:
        scores: in [0, 1], of any shape.
        thresholds: of the same shape; the score from which each concept is predicted.
    """
    way = np.where(scores >= thresholds, 1 - thresholds, thresholds)
    distance = np.abs(scores - thresholds)
    share: Floats = np.divide(distance, way, out=np.zeros_like(distance), where=way > 0)
    return np.minimum(share, np.float32(1))

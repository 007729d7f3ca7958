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


def margin_of_best(probabilities: Floats) -> Floats:
    """Returns the margin of predictions that predict their best concept: the difference of the two highest probabilities.

    Training measures error rates by margin, and serving accepts predictions by it.

    Args:
        probabilities: `(N, C)` of concepts that exclude each other.

    Returns:
        `(N,)` in [0, 1]; the probability itself for one concept, 0 for none.
    """
    if probabilities.shape[1] < 2:
        alone: Floats = probabilities.sum(axis=1)
        return alone
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    difference: Floats = best[:, 1] - best[:, 0]
    return difference


def margin_to_thresholds(scores: Floats, thresholds: Floats) -> Floats:
    """Returns the margin of predictions that predict what reaches a threshold: the smallest certainty of a score.

    Training measures error rates by margin, and serving accepts predictions by it.

    Args:
        scores: `(N, C)` in [0, 1].
        thresholds: `(C,)` or `(N, C)`.

    Returns:
        `(N,)` in [0, 1]; 1 without scores.
    """
    smallest: Floats = share_to_certainty(scores, np.broadcast_to(thresholds, scores.shape)).min(axis=1, initial=1)
    return smallest


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

"""Derives labels and certainty from prediction scores. Pure.

Serving decides which concepts are predicted and marks their scores. This module does not decide again.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.common.v1 import ConceptScore, ImageScores

Floats = NDArray[np.float32]


def labels_of(scores: ImageScores, *, multi_label: bool) -> Sequence[ConceptScore]:
    """Returns the labels to show to annotators, best first.

    Args:
        multi_label: if true, all concepts that the deployment's thresholds predict, possibly none; otherwise the best concept, even if its
            score is below the threshold, because the annotator decides.
    """
    return [score for score in scores.scores if score.predicted] if multi_label else scores.scores[:1]


def is_multi_label(scores: ImageScores) -> bool:
    """Returns True for the scores of a multi-label model, in which each concept has a threshold."""
    return any(score.HasField("threshold") for score in scores.scores)


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

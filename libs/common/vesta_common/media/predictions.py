"""What scores say: which labels they give an item, and how far they are from a threshold. Pure.

Serving decides which concepts are predicted, and the scores carry that; nothing is decided again here.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.common.v1 import ConceptScore, ImageScores

Floats = NDArray[np.float32]


def labels_of(scores: ImageScores, *, multi_label: bool) -> Sequence[ConceptScore]:
    """The labels that people are shown, best first.

    Args:
        multi_label: the answer is every concept that the model predicts under its deployment's thresholds, perhaps none;
            else the best concept, also where its score is too low for the deployment to predict it: a person decides.
    """
    return [found for found in scores.scores if found.predicted] if multi_label else scores.scores[:1]


def is_multi_label(scores: ImageScores) -> bool:
    """Whether they are a multi-label model's: each concept has a threshold."""
    return any(found.HasField("threshold") for found in scores.scores)


def share_to_certainty(scores: Floats, thresholds: Floats) -> Floats:
    """How far each score is from its threshold, in [0, 1]: as a share of the way from there to 1, or to 0 for a score below it.

    So a score of 0 or 1 is certain whatever the threshold; an absolute distance would leave everything below a threshold of
    0.05 uncertain for ever.

    Args:
        scores: in [0, 1], of any shape.
        thresholds: of the same shape, from which score each concept is predicted.
    """
    way = np.where(scores >= thresholds, 1 - thresholds, thresholds)
    distance = np.abs(scores - thresholds)
    share: Floats = np.divide(distance, way, out=np.zeros_like(distance), where=way > 0)
    return np.minimum(share, np.float32(1))

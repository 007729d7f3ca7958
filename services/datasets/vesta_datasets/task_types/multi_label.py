"""Multi-label classification: an item has any number of labels, and each concept is predicted from a threshold of its own."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_common.media.predictions import Floats, share_to_certainty
from vesta_contracts.common.v1 import Annotation, ConceptScore, Prediction

from vesta_datasets.task_types.image_labels import ImageLabels, as_image_labels, known_scores, to_unit
from vesta_datasets.task_types.uncertainty import Uncertainty

UNDECIDED = 0.5  # the centred probability of a score at its threshold


class MultiLabel(ImageLabels):
    """Any number of labels per item."""

    def doubts(self, predictions: Sequence[Prediction | None], concepts: Sequence[str]) -> Uncertainty:
        return centred_uncertainty(centred_scores(predictions, concepts))

    def pre_annotations(self, prediction: Prediction) -> list[Annotation]:
        """The concepts that the deployment predicts, possibly none."""
        return as_image_labels([score for score in prediction.scores if score.predicted])


def centred_scores(predictions: Sequence[Prediction | None], concepts: Sequence[str]) -> Floats:
    """Returns `(N, C)` scores, centred on the thresholds that they were predicted with; 0.5 for a concept without a score."""
    matrix = np.full((len(predictions), len(concepts)), UNDECIDED, np.float32)
    thresholds = np.full_like(matrix, UNDECIDED)
    for index, known in enumerate(known_scores(predictions, concepts)):
        matrix[index, list(known)] = [score.score for score in known.values()]
        thresholds[index, list(known)] = [threshold_of(score) for score in known.values()]
    return centred_on_thresholds(matrix, thresholds)


def threshold_of(score: ConceptScore) -> float:
    """Returns the score from which the concept is predicted."""
    return score.threshold if score.HasField("threshold") else UNDECIDED


def centred_uncertainty(centred: Floats) -> Uncertainty:
    """Returns the uncertainty of `(N, C)` centred scores.

    The margin uncertainty is 1 minus the smallest distance of a score from its threshold, as a share of the largest possible distance; the
    other one is the mean of the binary entropies of the concepts.
    """
    return Uncertainty(
        margin=to_unit(1.0 - 2.0 * np.abs(centred - UNDECIDED).min(axis=1)),
        entropy=to_unit(binary_entropy(centred).mean(axis=1)),
    )


def binary_entropy(centred: Floats) -> NDArray[np.float64]:
    """Returns the entropies of yes-or-no predictions in bits, in `[0, 1]`, in the shape of the centred scores."""
    p = np.clip(centred.astype(np.float64), 1e-12, 1.0)
    q = np.clip(1.0 - p, 1e-12, 1.0)
    entropies: NDArray[np.float64] = -(p * np.log2(p) + q * np.log2(q))
    return entropies


def centred_on_thresholds(scores: Floats, thresholds: Floats) -> Floats:
    """Rescales scores in [0, 1] so that each threshold maps to 0.5, and 0 and 1 map to themselves.

    `2 * abs(centred - 0.5)` is then the distance from the threshold as a share of the largest possible distance, as in the margin
    of the serving service.

    Args:
        scores: of any shape.
        thresholds: of the same shape, the score from which each is a prediction.
    """
    share = share_to_certainty(scores, thresholds)
    centred: Floats = (UNDECIDED + np.where(scores >= thresholds, share, -share) / 2).astype(np.float32)
    return centred

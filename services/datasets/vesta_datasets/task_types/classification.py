"""Classification: an item has one label, and the probabilities of its concepts sum to 1."""

from collections.abc import Sequence

import numpy as np
from vesta_common.media.predictions import Floats
from vesta_contracts.common.v1 import Annotation, Prediction

from vesta_datasets.task_types.image_labels import ImageLabels, as_image_labels, known_scores, to_unit
from vesta_datasets.task_types.uncertainty import Uncertainty


class Classification(ImageLabels):
    """One label per item."""

    def doubts(self, predictions: Sequence[Prediction | None], concepts: Sequence[str]) -> Uncertainty:
        return distribution_uncertainty(probabilities(predictions, concepts))

    def pre_annotations(self, prediction: Prediction) -> list[Annotation]:
        """The best concept, even if its score is below the threshold, because the annotator decides."""
        return as_image_labels(prediction.scores[:1])


def probabilities(predictions: Sequence[Prediction | None], concepts: Sequence[str]) -> Floats:
    """Returns `(N, C)` scores of the concepts, rescaled to a sum of 1; uniform for an item without scores."""
    matrix = np.full((len(predictions), len(concepts)), 1.0 / len(concepts), np.float32)
    for index, known in enumerate(known_scores(predictions, concepts)):
        if total := sum(score.score for score in known.values()):
            matrix[index] = 0.0
            matrix[index, list(known)] = [score.score / total for score in known.values()]
    return matrix


def distribution_uncertainty(distributions: Floats) -> Uncertainty:
    """Returns the uncertainty of `(N, C)` distributions over the concepts; 0 with one concept.

    The margin uncertainty is 1 minus the difference of the two highest probabilities (Scheffer et al., 2001); the other one is the
    entropy divided by its maximum (Shannon, 1948).
    """
    if distributions.shape[1] < 2:
        certain = np.zeros(distributions.shape[0], dtype=np.float32)
        return Uncertainty(certain, certain)
    best = np.partition(distributions, -2, axis=1)[:, -2:]
    p = np.clip(distributions.astype(np.float64), 1e-12, 1.0)
    return Uncertainty(
        margin=to_unit(1.0 - (best[:, 1] - best[:, 0])),
        entropy=to_unit(-(p * np.log(p)).sum(axis=1) / np.log(p.shape[1])),
    )

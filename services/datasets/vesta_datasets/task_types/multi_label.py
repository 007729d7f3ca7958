"""Multi-label classification: an item has any number of labels, and each concept is predicted from a threshold of its own."""

from collections.abc import Iterable, Sequence

import numpy as np
from vesta_common.media.predictions import Floats, share_to_certainty
from vesta_contracts.common.v1 import Annotation, Prediction

from vesta_datasets.items.annotations import labels_of, shape_concepts_of
from vesta_datasets.task_types.dataset_task import DatasetTask, Scores
from vesta_datasets.task_types.image_labels import as_image_labels, known_scores, to_unit

UNDECIDED = 0.5  # the centred probability of a score at its threshold


class MultiLabel(DatasetTask):
    """Any number of labels per item. Probabilities are centred: see `centred_on_thresholds`."""

    is_distribution = False

    def probabilities(self, items: Sequence[Scores], concepts: Sequence[str]) -> Floats:
        """The scores, centred on the thresholds that they were predicted with; 0.5 for a concept without a score."""
        matrix = np.full((len(items), len(concepts)), UNDECIDED, np.float32)
        thresholds = np.full_like(matrix, UNDECIDED)
        for index, known in enumerate(known_scores(items, concepts)):
            matrix[index, list(known)] = [score.score for score in known.values()]
            thresholds[index, list(known)] = [
                score.threshold if score.HasField("threshold") else UNDECIDED for score in known.values()
            ]
        return centred_on_thresholds(matrix, thresholds)

    def margin_uncertainty(self, probabilities: Floats) -> Floats:
        """1 minus the smallest distance of a score from the threshold of its concept, as a share of the largest possible distance."""
        return to_unit(1.0 - 2.0 * np.abs(probabilities - UNDECIDED).min(axis=1))

    def entropy_uncertainty(self, probabilities: Floats) -> Floats:
        """The mean of the binary entropies of the concepts."""
        p = np.clip(probabilities.astype(np.float64), 1e-12, 1.0)
        q = np.clip(1.0 - p, 1e-12, 1.0)
        return to_unit(-(p * np.log2(p) + q * np.log2(q)).mean(axis=1))

    def labels(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:
        return labels_of(annotations)

    def other_concepts(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:
        """Those of shapes."""
        return shape_concepts_of(annotations)

    def pre_annotations(self, prediction: Prediction) -> list[Annotation]:
        """The concepts that the deployment predicts, possibly none."""
        return as_image_labels([score for score in prediction.scores if score.predicted])


def centred_on_thresholds(scores: Floats, thresholds: Floats) -> Floats:
    """Rescales scores in [0, 1] so that each threshold maps to 0.5, and 0 and 1 map to themselves.

    `2 * abs(centred - 0.5)` is then the distance from the threshold as a share of the largest possible distance, as in the margin
    of the serving service.

    Args:
        scores: `(N, C)`.
        thresholds: `(N, C)`, the score from which each concept is predicted.
    """
    share = share_to_certainty(scores, thresholds)
    centred: Floats = (UNDECIDED + np.where(scores >= thresholds, share, -share) / 2).astype(np.float32)
    return centred

"""Classification: an item has one label, and the probabilities of its concepts sum to 1."""

from collections.abc import Iterable, Sequence

import numpy as np
from vesta_common.media.predictions import Floats
from vesta_contracts.common.v1 import Annotation, Prediction

from vesta_datasets.items.annotations import labels_of, shape_concepts_of
from vesta_datasets.task_types.dataset_task import DatasetTask, Scores
from vesta_datasets.task_types.image_labels import as_image_labels, known_scores, to_unit


class Classification(DatasetTask):
    """One label per item."""

    is_distribution = True

    def probabilities(self, items: Sequence[Scores], concepts: Sequence[str]) -> Floats:
        """The scores of the known concepts, rescaled to a sum of 1; uniform for an item without scores."""
        matrix = np.full((len(items), len(concepts)), 1.0 / len(concepts), np.float32)
        for index, known in enumerate(known_scores(items, concepts)):
            if total := sum(score.score for score in known.values()):
                matrix[index] = 0.0
                matrix[index, list(known)] = [score.score / total for score in known.values()]
        return matrix

    def margin_uncertainty(self, probabilities: Floats) -> Floats:
        """1 minus the margin between the two highest probabilities; 0 with one concept."""
        if probabilities.shape[1] < 2:
            return np.zeros(probabilities.shape[0], dtype=np.float32)
        best = np.partition(probabilities, -2, axis=1)[:, -2:]
        return to_unit(1.0 - (best[:, 1] - best[:, 0]))

    def entropy_uncertainty(self, probabilities: Floats) -> Floats:
        """The entropy of the distribution over the concepts; 0 with one concept."""
        if probabilities.shape[1] < 2:
            return np.zeros(probabilities.shape[0], dtype=np.float32)
        p = np.clip(probabilities.astype(np.float64), 1e-12, 1.0)
        return to_unit(-(p * np.log(p)).sum(axis=1) / np.log(p.shape[1]))

    def labels(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:
        return labels_of(annotations)

    def other_concepts(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:
        """Those of shapes."""
        return shape_concepts_of(annotations)

    def pre_annotations(self, prediction: Prediction) -> list[Annotation]:
        """The best concept, even if its score is below the threshold, because the annotator decides."""
        return as_image_labels(prediction.scores[:1])

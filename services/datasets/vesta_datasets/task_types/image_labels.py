"""What the task types whose annotations are image labels have in common."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_common.media.predictions import Floats
from vesta_contracts.common.v1 import Annotation, ConceptScore, ImageLabel, Prediction

from vesta_datasets.items.annotations import labels_of, shape_concepts_of
from vesta_datasets.task_types.dataset_task import DatasetTask
from vesta_datasets.task_types.uncertainty import Answers, Mask, Uncertainty


class ImageLabels(DatasetTask):
    """Labels of whole images. Shapes do not label an item."""

    @abstractmethod
    def doubts(self, predictions: Sequence[Prediction | None], concepts: Sequence[str]) -> Uncertainty:
        """Returns the uncertainty of N items, whichever of them are labelled; see `uncertainty`."""

    def uncertainty(
        self,
        predictions: Sequence[Prediction | None],
        concepts: Sequence[str],
        held: Mask | None = None,  # noqa: ARG002 - every item is labelled at a look
        answers: Answers = (),  # noqa: ARG002
    ) -> Uncertainty:
        return self.doubts(predictions, concepts)

    def labels(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:
        return labels_of(annotations)

    def other_concepts(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:
        """Those of shapes."""
        return shape_concepts_of(annotations)


def known_scores(
    predictions: Sequence[Prediction | None], concepts: Sequence[str]
) -> Iterator[dict[int, ConceptScore]]:
    """Yields the scores of each item by the index of their concept in `concepts`; none without a prediction."""
    column = {concept: index for index, concept in enumerate(concepts)}
    for prediction in predictions:
        scores = prediction.scores if prediction is not None else ()
        yield {column[score.concept]: score for score in scores if score.concept in column}


def as_image_labels(scores: Sequence[ConceptScore]) -> list[Annotation]:
    """Returns an image label for each score."""
    return [
        Annotation(concept=score.concept, image_label=ImageLabel(), score=min(1.0, score.score)) for score in scores
    ]


def to_unit(values: NDArray[np.floating]) -> Floats:
    """Clips values to [0, 1]."""
    clipped: Floats = np.clip(values, 0.0, 1.0).astype(np.float32)
    return clipped

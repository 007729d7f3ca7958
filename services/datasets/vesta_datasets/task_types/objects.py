"""What the task types whose annotations are objects have in common: an item has any number of objects, and their concepts label it."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from vesta_contracts.common.v1 import Annotation, Prediction

from vesta_datasets.items.annotations import concepts_of
from vesta_datasets.task_types.annotation_cost import seconds_of_objects
from vesta_datasets.task_types.dataset_task import DatasetTask
from vesta_datasets.task_types.object_uncertainty import object_uncertainty
from vesta_datasets.task_types.predicted_objects import predicted_objects, split_scores
from vesta_datasets.task_types.uncertainty import Answers, Mask, Uncertainty


class ObjectDatasetTask(DatasetTask):
    """Objects, each with a concept and a shape.

    Attributes:
        draw_seconds: how long a person needs to draw an object.
    """

    typical_start = False  # typical images show the common objects, of which there are enough anyway
    draw_seconds: ClassVar[float]

    def uncertainty(
        self,
        predictions: Sequence[Prediction | None],
        concepts: Sequence[str],
        held: Mask | None = None,
        answers: Answers = (),
    ) -> Uncertainty:
        return object_uncertainty(predictions, concepts, held, answers, self.draw_seconds)

    def labels(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:
        """Those of the objects. An item without an object is labelled "none of the concepts"."""
        return concepts_of(annotations)

    def other_concepts(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:  # noqa: ARG002
        return ()

    def pre_annotations(self, prediction: Prediction) -> list[Annotation]:
        """The objects whose scores reach the threshold of their concept, possibly none."""
        return predicted_objects(prediction)

    def annotation_seconds(self, prediction: Prediction) -> float:
        """See `annotation_cost`."""
        return seconds_of_objects(*split_scores(prediction), self.draw_seconds)

"""Detection: an item has any number of boxes, and the concepts of its boxes label it."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from vesta_common.messages import without
from vesta_contracts.common.v1 import Annotation, Prediction

from vesta_datasets.items.annotations import concepts_of
from vesta_datasets.items.bounding_boxes import bounding_box
from vesta_datasets.task_types.annotation_cost import DRAW_BOX_SECONDS, seconds_of_objects
from vesta_datasets.task_types.dataset_task import DatasetTask
from vesta_datasets.task_types.object_uncertainty import object_uncertainty
from vesta_datasets.task_types.predicted_objects import predicted_objects, split_scores
from vesta_datasets.task_types.uncertainty import Uncertainty


class Detection(DatasetTask):
    """Boxes.

    Attributes:
        draw_seconds: how long a person needs to draw an object.
    """

    draw_seconds: ClassVar[float] = DRAW_BOX_SECONDS

    def uncertainty(self, predictions: Sequence[Prediction | None], concepts: Sequence[str]) -> Uncertainty:
        return object_uncertainty(predictions, concepts)

    def imported(self, annotations: Sequence[Annotation]) -> Sequence[Annotation]:
        """Replaces each shape by the box around it."""
        return [_as_box(annotation) for annotation in annotations]

    def labels(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:
        """Those of the boxes. An item without a box is labelled "none of the concepts"."""
        return concepts_of(annotations)

    def other_concepts(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:  # noqa: ARG002
        return ()

    def pre_annotations(self, prediction: Prediction) -> list[Annotation]:
        """The objects whose scores reach the threshold of their concept, possibly none."""
        return predicted_objects(prediction)

    def annotation_seconds(self, prediction: Prediction) -> float:
        """See `annotation_cost`."""
        return seconds_of_objects(*split_scores(prediction), self.draw_seconds)


def _as_box(annotation: Annotation) -> Annotation:
    """Returns the annotation with a box; unchanged if its shape has no box."""
    box = bounding_box(annotation)
    if box is None:
        return annotation
    boxed = without(annotation, str(annotation.WhichOneof("shape")))
    boxed.box.CopyFrom(box)
    return boxed

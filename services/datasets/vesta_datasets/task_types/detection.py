"""Detection: an item has any number of boxes, and the concepts of its boxes label it."""

from collections.abc import Iterable, Sequence

from vesta_common.messages import without
from vesta_contracts.common.v1 import Annotation, Prediction

from vesta_datasets.items.annotations import concepts_of
from vesta_datasets.items.bounding_boxes import bounding_box
from vesta_datasets.task_types.multi_label import MultiLabel


class Detection(MultiLabel):
    """Boxes. Scores by concept are those of the presence of an object, as for several labels."""

    def imported(self, annotations: Sequence[Annotation]) -> list[Annotation]:
        """Replaces each shape by the box around it."""
        return [_as_box(annotation) for annotation in annotations]

    def labels(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:
        """Those of the boxes. An item without a box is labelled "none of the concepts"."""
        return concepts_of(annotations)

    def other_concepts(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:  # noqa: ARG002
        return ()

    def pre_annotations(self, prediction: Prediction) -> list[Annotation]:  # noqa: ARG002
        """None: scores do not say where an object is."""
        return []


def _as_box(annotation: Annotation) -> Annotation:
    """Returns the annotation with a box; unchanged if its shape has no box."""
    box = bounding_box(annotation)
    if box is None:
        return annotation
    boxed = without(annotation, str(annotation.WhichOneof("shape")))
    boxed.box.CopyFrom(box)
    return boxed

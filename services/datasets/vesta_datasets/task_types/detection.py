"""Detection: an item has any number of boxes."""

from collections.abc import Sequence

from vesta_common.media.annotation_cost import DRAW_BOX_SECONDS
from vesta_common.messages import without
from vesta_contracts.common.v1 import Annotation

from vesta_datasets.items.bounding_boxes import bounding_box
from vesta_datasets.task_types.objects import ObjectDatasetTask


class Detection(ObjectDatasetTask):
    """Boxes."""

    draw_seconds = DRAW_BOX_SECONDS

    def imported(self, annotations: Sequence[Annotation]) -> Sequence[Annotation]:
        """Replaces each shape by the box around it."""
        return [_as_box(annotation) for annotation in annotations]


def _as_box(annotation: Annotation) -> Annotation:
    """Returns the annotation with a box; unchanged if its shape has no box."""
    box = bounding_box(annotation)
    if box is None:
        return annotation
    boxed = without(annotation, str(annotation.WhichOneof("shape")))
    boxed.box.CopyFrom(box)
    return boxed

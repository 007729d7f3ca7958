"""Detection: objects are boxes."""

from collections.abc import Sequence

from vesta_contracts.common.v1 import Annotation

from vesta_annotation.task_types.boxes import Boxes, median_box
from vesta_annotation.task_types.objects import ObjectTask


class Detection(ObjectTask):
    """Boxes, matched by their intersection over union, and merged by the median of each coordinate."""

    def shapes(self, annotations: Sequence[Annotation]) -> Boxes:
        return Boxes(annotations)

    def merged_shape(self, annotations: Sequence[Annotation]) -> Annotation:
        return median_box(annotations)

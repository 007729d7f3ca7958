"""Instance segmentation: objects are polygons, rotated boxes or masks."""

from collections.abc import Sequence

from vesta_contracts.common.v1 import Annotation

from vesta_annotation.task_types.areas import Areas, merged_area
from vesta_annotation.task_types.objects import ObjectTask


class InstanceSegmentation(ObjectTask):
    """Polygons, rotated boxes and masks, matched by their intersection over union. See `merged_area` for their merging."""

    def shapes(self, annotations: Sequence[Annotation]) -> Areas:
        return Areas(annotations)

    def merged_shape(self, annotations: Sequence[Annotation]) -> Annotation:
        return merged_area(annotations)

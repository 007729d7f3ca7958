"""Instance segmentation: an item has any number of objects with their pixels."""

from vesta_common.media.annotation_cost import DRAW_OUTLINE_SECONDS

from vesta_datasets.task_types.objects import ObjectDatasetTask


class InstanceSegmentation(ObjectDatasetTask):
    """Polygons, rotated boxes and masks."""

    draw_seconds = DRAW_OUTLINE_SECONDS

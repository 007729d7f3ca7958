"""Keypoints: an item has any number of objects with named points."""

from vesta_common.media.annotation_cost import DRAW_POINTS_SECONDS

from vesta_datasets.task_types.objects import ObjectDatasetTask


class Keypoints(ObjectDatasetTask):
    """Sets of named points."""

    draw_seconds = DRAW_POINTS_SECONDS

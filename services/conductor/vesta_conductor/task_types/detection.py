"""Detection: each predicted box is compared with an accepted one."""

from collections.abc import Iterable, Sequence

import numpy as np
from vesta_common.media.boxes import box_ious, corners
from vesta_contracts.annotation.v1 import Task
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.training.v1 import Estimate, Metrics

from vesta_conductor.task_types.loop_task import LoopTask

IOU_MIN = 0.5
"""Two boxes of one object overlap with at least this intersection over union, as in the metric."""


class Detection(LoopTask):
    """Any number of boxes per item. A prediction without a box is a prediction too."""

    recipe = "detection"
    concepts_min = 1
    metric = "mAP@50"
    concept_metric = "average precision"

    def quality(self, metrics: Metrics) -> Estimate:
        return metrics.mean_average_precision_50

    def is_labelled(self, annotations: Iterable[Annotation]) -> bool:  # noqa: ARG002
        """Always: no box says that nothing is there."""
        return True

    def is_correct(self, task: Task) -> bool:
        """Whether predicted and accepted boxes can be paired so that none is left, with equal concepts and an IoU of `IOU_MIN` or more."""
        accepted, predicted = list(task.accepted), list(task.pre_annotations)
        if len(accepted) != len(predicted):
            return False
        concepts, others = (np.array([one.concept for one in boxes], np.str_) for boxes in (accepted, predicted))
        fits = (concepts[:, None] == others) & (box_ious(corners(accepted), corners(predicted)) >= IOU_MIN)
        return _matching_size(fits.tolist()) == len(accepted)


def _matching_size(fits: Sequence[Sequence[bool]]) -> int:
    """Returns the largest number of pairs of a row and a column that fit, each used once (Kuhn's augmenting paths)."""
    row_of: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if fit and column not in tried:
                tried.add(column)
                if column not in row_of or place(row_of[column], tried):
                    row_of[column] = row
                    return True
        return False

    return sum(place(row, set()) for row in range(len(fits)))

"""Detection: each predicted box is compared with an accepted one."""

from collections.abc import Iterable, Sequence

from vesta_contracts.annotation.v1 import Task
from vesta_contracts.common.v1 import Annotation, PixelBox
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
        fits = [[_is_same_object(one, other) for other in predicted] for one in accepted]
        return _matching_size(fits) == len(accepted)


def _is_same_object(one: Annotation, other: Annotation) -> bool:
    return one.concept == other.concept and _iou(one.box, other.box) >= IOU_MIN


def _iou(one: PixelBox, other: PixelBox) -> float:
    """Returns the intersection over union, in [0, 1]; 0 if both boxes are empty."""
    width = min(one.x_max_px, other.x_max_px) - max(one.x_min_px, other.x_min_px)
    height = min(one.y_max_px, other.y_max_px) - max(one.y_min_px, other.y_min_px)
    intersection = max(0.0, width) * max(0.0, height)
    union = _area(one) + _area(other) - intersection
    return intersection / union if union else 0.0


def _area(box: PixelBox) -> float:
    return (box.x_max_px - box.x_min_px) * (box.y_max_px - box.y_min_px)


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

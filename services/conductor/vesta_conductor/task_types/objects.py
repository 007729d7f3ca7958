"""What detection and instance segmentation have in common: predicted objects are compared with the accepted ones."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.annotation.v1 import Task
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.training.v1 import Estimate, Metrics

from vesta_conductor.task_types.loop_task import LoopTask

IOU_MIN = 0.5
"""Two shapes of one object overlap with at least this intersection over union, as in the metric."""


class ObjectLoopTask(LoopTask):
    """Any number of objects per item. A prediction without an object is a prediction too."""

    concepts_min = 1
    concept_metric = "average precision"

    @abstractmethod
    def overlaps(self, one: Sequence[Annotation], other: Sequence[Annotation]) -> NDArray[np.float64]:
        """Returns `(N, M)` intersections over unions of N and M objects of one image."""

    def quality(self, metrics: Metrics) -> Estimate:
        return metrics.mean_average_precision_50

    def is_labelled(self, annotations: Iterable[Annotation]) -> bool:  # noqa: ARG002
        """Always: no object says that nothing is there."""
        return True

    def is_correct(self, task: Task) -> bool:
        """Whether predicted and accepted objects form pairs of equal concepts with an IoU of at least `IOU_MIN`, and none is left."""
        accepted, predicted = list(task.accepted), list(task.pre_annotations)
        if len(accepted) != len(predicted):
            return False
        concepts, others = (np.array([one.concept for one in objects], np.str_) for objects in (accepted, predicted))
        fits = (concepts[:, None] == others) & (self.overlaps(accepted, predicted) >= IOU_MIN)
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

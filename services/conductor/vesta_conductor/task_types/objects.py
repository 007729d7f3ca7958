"""What detection and instance segmentation have in common: predicted objects are compared with the accepted ones."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_common.media.crowds import is_crowd
from vesta_common.media.same_objects import are_same, beside_crowds
from vesta_contracts.annotation.v1 import Task
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.training.v1 import Estimate, Metrics

from vesta_conductor.task_types.loop_task import LoopTask


class ObjectLoopTask(LoopTask):
    """Any number of objects per item. A prediction without an object is a prediction too."""

    concepts_min = 1
    concept_metric = "average precision"

    @abstractmethod
    def overlaps(self, one: Sequence[Annotation], other: Sequence[Annotation]) -> NDArray[np.float64]:
        """Returns `(N, M)` intersections over unions of N and M objects of one image."""

    @abstractmethod
    def shares(self, one: Sequence[Annotation], other: Sequence[Annotation]) -> NDArray[np.float64]:
        """Returns `(N, M)` shares of N objects that lie in M others of one image."""

    def quality(self, metrics: Metrics) -> Estimate:
        return metrics.mean_average_precision_50

    def is_labelled(self, annotations: Iterable[Annotation]) -> bool:  # noqa: ARG002
        """Always: no object says that nothing is there."""
        return True

    def is_correct(self, task: Task) -> bool:
        """Whether the predicted objects are the accepted ones. What is predicted in a crowd is neither right nor wrong."""
        accepted = [one for one in task.accepted if not is_crowd(one)]
        predicted = self._beside_crowds(list(task.pre_annotations), accepted, list(filter(is_crowd, task.accepted)))
        return are_same(self.overlaps(accepted, predicted), _concepts(accepted), _concepts(predicted))

    def _beside_crowds(
        self, predicted: list[Annotation], accepted: Sequence[Annotation], crowds: Sequence[Annotation]
    ) -> list[Annotation]:
        if not (crowds and predicted):
            return predicted
        counted = beside_crowds(
            self.overlaps(predicted, accepted),
            self.shares(predicted, crowds),
            np.array(_concepts(predicted)),
            np.array(_concepts(accepted)),
            np.array(_concepts(crowds)),
        )
        return [one for one, counts in zip(predicted, counted, strict=True) if counts]


def _concepts(objects: Iterable[Annotation]) -> list[str]:
    return [one.concept for one in objects]

"""What detection and instance segmentation have in common: predicted objects are compared with the accepted ones."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_common.media.same_objects import are_same
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

    def quality(self, metrics: Metrics) -> Estimate:
        return metrics.mean_average_precision_50

    def is_labelled(self, annotations: Iterable[Annotation]) -> bool:  # noqa: ARG002
        """Always: no object says that nothing is there."""
        return True

    def is_correct(self, task: Task) -> bool:
        """Whether the predicted objects are the accepted ones."""
        accepted, predicted = list(task.accepted), list(task.pre_annotations)
        concepts, others = ([one.concept for one in objects] for objects in (accepted, predicted))
        return are_same(self.overlaps(accepted, predicted), concepts, others)

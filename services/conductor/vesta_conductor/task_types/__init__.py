"""What depends on the task type of a Loop's dataset in this service: one module per task type."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vesta_common.media import task_types
from vesta_common.media.task_types import known_task_type
from vesta_contracts.annotation.v1 import Campaign
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.datasets.v1 import Dataset

from vesta_conductor.task_types.classification import Classification
from vesta_conductor.task_types.detection import Detection
from vesta_conductor.task_types.instance_segmentation import InstanceSegmentation
from vesta_conductor.task_types.loop_task import LoopTask
from vesta_conductor.task_types.multi_label import MultiLabel
from vesta_conductor.task_types.semantic_segmentation import SemanticSegmentation

TASK_TYPES: Final[Mapping[TaskType.ValueType, LoopTask]] = MappingProxyType(
    {
        TaskType.TASK_TYPE_CLASSIFICATION: Classification(),
        TaskType.TASK_TYPE_MULTI_LABEL: MultiLabel(),
        TaskType.TASK_TYPE_DETECTION: Detection(),
        TaskType.TASK_TYPE_INSTANCE_SEGMENTATION: InstanceSegmentation(),
        TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION: SemanticSegmentation(),
    }
)

__all__ = ["TASK_TYPES", "LoopTask", "check_supported", "task_type_of"]


def check_supported(dataset: Dataset) -> None:
    """Checks that there is a module for the task type of a dataset.

    Raises:
        InvalidArgument: TASK_TYPE_UNSUPPORTED.
    """
    task_types.check_supported(dataset.task_type, TASK_TYPES, "loop.policy.dataset", dataset.name)


def task_type_of(subject: Dataset | Campaign | None) -> LoopTask:
    """Returns the module of the task type of a dataset or campaign; the default while it is unknown."""
    return TASK_TYPES[known_task_type(subject.task_type if subject else TaskType.TASK_TYPE_UNSPECIFIED)]

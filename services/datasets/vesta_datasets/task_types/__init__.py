"""What depends on the task type of a dataset in this service: one module per task type."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vesta_common.media.task_types import module_of
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.datasets.v1 import Dataset

from vesta_datasets.task_types.classification import Classification
from vesta_datasets.task_types.dataset_task import DatasetTask
from vesta_datasets.task_types.detection import Detection
from vesta_datasets.task_types.instance_segmentation import InstanceSegmentation
from vesta_datasets.task_types.keypoints import Keypoints
from vesta_datasets.task_types.multi_label import MultiLabel
from vesta_datasets.task_types.semantic_segmentation import SemanticSegmentation

TASK_TYPES: Final[Mapping[TaskType.ValueType, DatasetTask]] = MappingProxyType(
    {
        TaskType.TASK_TYPE_CLASSIFICATION: Classification(),
        TaskType.TASK_TYPE_MULTI_LABEL: MultiLabel(),
        TaskType.TASK_TYPE_DETECTION: Detection(),
        TaskType.TASK_TYPE_INSTANCE_SEGMENTATION: InstanceSegmentation(),
        TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION: SemanticSegmentation(),
        TaskType.TASK_TYPE_KEYPOINTS: Keypoints(),
    }
)

__all__ = ["TASK_TYPES", "DatasetTask", "task_type_of"]


def task_type_of(dataset: Dataset) -> DatasetTask:
    """Returns the module of a dataset's task type.

    Raises:
        InvalidArgument: TASK_TYPE_UNSUPPORTED.
    """
    return module_of(dataset.task_type, TASK_TYPES, "dataset.task_type", dataset.name or "the dataset")

"""What depends on the task type of a model in this service: one module per task type."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vesta_common.media.task_types import model_task_type, module_of
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.training.v1 import ModelVersion

from vesta_serving.task_types.classification import Classification
from vesta_serving.task_types.detection import Detection
from vesta_serving.task_types.embedding import Embedding
from vesta_serving.task_types.instance_segmentation import InstanceSegmentation
from vesta_serving.task_types.multi_label import MultiLabel
from vesta_serving.task_types.policy import Policy
from vesta_serving.task_types.semantic_segmentation import SemanticSegmentation
from vesta_serving.task_types.serving_task import ServingTask, Vocabulary

TASK_TYPES: Final[Mapping[TaskType.ValueType, ServingTask]] = MappingProxyType(
    {
        TaskType.TASK_TYPE_CLASSIFICATION: Classification(),
        TaskType.TASK_TYPE_MULTI_LABEL: MultiLabel(),
        TaskType.TASK_TYPE_DETECTION: Detection(),
        TaskType.TASK_TYPE_INSTANCE_SEGMENTATION: InstanceSegmentation(),
        TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION: SemanticSegmentation(),
        TaskType.TASK_TYPE_EMBEDDING: Embedding(),
    }
)

__all__ = ["TASK_TYPES", "Policy", "ServingTask", "Vocabulary", "task_type_of"]


def task_type_of(version: ModelVersion) -> ServingTask:
    """Returns the module of a model version's task type.

    Raises:
        InvalidArgument: TASK_TYPE_UNSUPPORTED.
    """
    return module_of(model_task_type(version), TASK_TYPES, "deployment.model_version", version.name)

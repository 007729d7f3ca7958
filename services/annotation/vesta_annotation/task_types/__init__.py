"""What depends on the task type of a Campaign in this service: one module per task type."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from vesta_common.media.task_types import module_of
from vesta_contracts.annotation.v1 import Campaign
from vesta_contracts.common.v1 import TaskType

from vesta_annotation.task_types.annotation_task import AnnotationTask, Consensus
from vesta_annotation.task_types.detection import Detection
from vesta_annotation.task_types.image_labels import ImageLabels
from vesta_annotation.task_types.instance_segmentation import InstanceSegmentation
from vesta_annotation.task_types.keypoints import Keypoints
from vesta_annotation.task_types.semantic_segmentation import SemanticSegmentation

TASK_TYPES: Final[Mapping[TaskType.ValueType, AnnotationTask[Any]]] = MappingProxyType(
    {
        TaskType.TASK_TYPE_CLASSIFICATION: ImageLabels(),
        TaskType.TASK_TYPE_MULTI_LABEL: ImageLabels(),
        TaskType.TASK_TYPE_DETECTION: Detection(),
        TaskType.TASK_TYPE_INSTANCE_SEGMENTATION: InstanceSegmentation(),
        TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION: SemanticSegmentation(),
        TaskType.TASK_TYPE_KEYPOINTS: Keypoints(),
    }
)

__all__ = ["TASK_TYPES", "AnnotationTask", "Consensus", "task_type_of"]


def task_type_of(campaign: Campaign) -> AnnotationTask[Any]:
    """Returns the module of a campaign's task type.

    Raises:
        InvalidArgument: TASK_TYPE_UNSUPPORTED.
    """
    return module_of(campaign.task_type, TASK_TYPES, "campaign.task_type", campaign.name or "the campaign")

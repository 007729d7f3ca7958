"""What depends on the task type in the demo: one module per task type."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from photographs import Photographs
from vesta_contracts.common.v1 import TaskType

from task_types.classification import Classification
from task_types.demo_task import DemoTask
from task_types.detection import Detection
from task_types.instance_segmentation import InstanceSegmentation
from task_types.semantic_segmentation import SemanticSegmentation

TASK_TYPES: Final[Mapping[TaskType.ValueType, DemoTask]] = MappingProxyType(
    {
        TaskType.TASK_TYPE_CLASSIFICATION: Classification(),
        TaskType.TASK_TYPE_DETECTION: Detection(),
        TaskType.TASK_TYPE_INSTANCE_SEGMENTATION: InstanceSegmentation(),
        TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION: SemanticSegmentation(),
    }
)
_FORMATS = "Boxes and masks are read from COCO, Pascal VOC and YOLO"

__all__ = ["TASK_TYPES", "DemoTask", "name_of", "names", "read_data", "task_named"]


def names() -> list[str]:
    """Returns the names of the task types; the first is the default."""
    return [name_of(number) for number in TASK_TYPES]


def name_of(task_type: TaskType.ValueType) -> str:
    """Returns the name of a task type, such as `instance-segmentation`."""
    return TaskType.Name(task_type).removeprefix("TASK_TYPE_").lower().replace("_", "-")


def task_named(name: str) -> DemoTask:
    """Returns the task type with one of `names`."""
    return dict(zip(names(), TASK_TYPES.values(), strict=True))[name]


def read_data(folder: Path, task: DemoTask | None = None) -> tuple[str, Photographs]:
    """Returns the images of a folder of the user, and the name of its format.

    Args:
        task: what to read from a folder that allows several. By default boxes, or else masks of objects, maps or class folders.

    Raises:
        ValueError: the folder has none of the formats, or no annotations of the task, or an annotation file is invalid.
    """
    of_classes, *drawn = TASK_TYPES.values()
    try:
        for one in [task] if task else [*drawn, of_classes]:
            found = one.find_data(folder)
            if found is not None:
                return found
    except ValueError as error:
        raise ValueError(f"{error}. {_FORMATS}") from error
    raise ValueError(f"{folder} has no {task.unit if task else 'images'}. {_FORMATS}")

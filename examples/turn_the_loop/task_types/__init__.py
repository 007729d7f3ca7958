"""What depends on the task type in the demo: one module per task type."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from annotation_formats import read_boxes
from photographs import Photographs, read_folder
from vesta_contracts.common.v1 import TaskType

from task_types.classification import Classification
from task_types.demo_task import DemoTask
from task_types.detection import Detection

TASK_TYPES: Final[Mapping[TaskType.ValueType, DemoTask]] = MappingProxyType(
    {TaskType.TASK_TYPE_CLASSIFICATION: Classification(), TaskType.TASK_TYPE_DETECTION: Detection()}
)

__all__ = ["TASK_TYPES", "DemoTask", "names", "read_data", "task_named"]


def names() -> list[str]:
    """Returns the names of the task types, such as `detection`; the first is the default."""
    return [TaskType.Name(number).removeprefix("TASK_TYPE_").lower() for number in TASK_TYPES]


def task_named(name: str) -> DemoTask:
    """Returns the task type with one of `names`."""
    return dict(zip(names(), TASK_TYPES.values(), strict=True))[name]


def read_data(folder: Path) -> tuple[str, Photographs]:
    """Returns the images of a folder of the user, and the name of its format.

    Raises:
        ValueError: the folder has none of the formats, or an annotation file is invalid.
    """
    try:
        return read_boxes(folder) or ("class folders", read_folder(folder))
    except ValueError as error:
        raise ValueError(f"{error}. Boxes are read from COCO, Pascal VOC and YOLO") from error

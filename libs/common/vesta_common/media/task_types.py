"""The annotations that each task type allows. Annotation and datasets check annotations by the same rules."""

from dataclasses import dataclass

from vesta_contracts.common.v1 import TaskType


@dataclass(frozen=True)
class AllowedAnnotations:
    """The annotations that the items of a dataset may have.

    Attributes:
        several_labels: whether an item may have several image labels.
    """

    several_labels: bool


_ALLOWED = {
    TaskType.TASK_TYPE_CLASSIFICATION: AllowedAnnotations(several_labels=False),
    TaskType.TASK_TYPE_MULTI_LABEL: AllowedAnnotations(several_labels=True),
}


def known_task_type(task_type: TaskType.ValueType) -> TaskType.ValueType:
    """Returns the task type of a dataset or campaign; the default is classification."""
    return task_type or TaskType.TASK_TYPE_CLASSIFICATION


def allowed_annotations(task_type: TaskType.ValueType) -> AllowedAnnotations:
    """Returns the annotations that a task type allows."""
    return _ALLOWED[known_task_type(task_type)]


def name_of(task_type: TaskType.ValueType) -> str:
    """Returns the name of a task type for messages, such as `multi-label`."""
    return TaskType.Name(known_task_type(task_type)).removeprefix("TASK_TYPE_").lower().replace("_", "-")

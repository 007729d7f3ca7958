"""The task type of the datasets that each recipe can train on, and of its models."""

from vesta_contracts.common.v1 import TaskType

from vesta_training.recipes.recipe import Task

_TASK_TYPES = {
    Task.CLASSIFICATION: TaskType.TASK_TYPE_CLASSIFICATION,
    Task.MULTILABEL: TaskType.TASK_TYPE_MULTI_LABEL,
    Task.EMBEDDING: TaskType.TASK_TYPE_EMBEDDING,
}


def task_type_of(task: Task) -> TaskType.ValueType:
    """Returns the task type that a dataset must have; unspecified if it can have any."""
    return TaskType.TASK_TYPE_UNSPECIFIED if task is Task.EMBEDDING else _TASK_TYPES[task]


def model_task_type_of(task: Task) -> TaskType.ValueType:
    """Returns the task type of the models that recipes of a task train."""
    return _TASK_TYPES[task]

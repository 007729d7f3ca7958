"""The task type of the datasets that each recipe can train on."""

from vesta_contracts.common.v1 import TaskType

from vesta_training.recipes.recipe import Task

_TASK_TYPES = {
    Task.CLASSIFICATION: TaskType.TASK_TYPE_CLASSIFICATION,
    Task.MULTILABEL: TaskType.TASK_TYPE_MULTI_LABEL,
    Task.EMBEDDING: TaskType.TASK_TYPE_UNSPECIFIED,  # it uses no annotations, so that it suits every dataset
}


def task_type_of(task: Task) -> TaskType.ValueType:
    """Returns the task type that a dataset must have; unspecified if it can have any."""
    return _TASK_TYPES[task]

"""The task type of the datasets that each recipe can train on, and of its models."""

from vesta_common.media.task_types import check_supported, check_task_type
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.datasets.v1 import Dataset

from vesta_training.recipes.choices import Task

_TASK_TYPES = {
    Task.CLASSIFICATION: TaskType.TASK_TYPE_CLASSIFICATION,
    Task.MULTILABEL: TaskType.TASK_TYPE_MULTI_LABEL,
    Task.DETECTION: TaskType.TASK_TYPE_DETECTION,
    Task.SEMANTIC_SEGMENTATION: TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION,
    Task.INSTANCE_SEGMENTATION: TaskType.TASK_TYPE_INSTANCE_SEGMENTATION,
    Task.EMBEDDING: TaskType.TASK_TYPE_EMBEDDING,
}


def task_type_of(task: Task) -> TaskType.ValueType:
    """Returns the task type that a dataset must have; unspecified if it can have any."""
    return TaskType.TASK_TYPE_UNSPECIFIED if task is Task.EMBEDDING else _TASK_TYPES[task]


def check_dataset(task: Task, recipe: str, dataset: Dataset) -> None:
    """Checks that recipes of a task train on the task type of a dataset.

    Args:
        recipe: the name of the recipe, for the message.

    Raises:
        InvalidArgument: TASK_TYPE_UNSUPPORTED if no recipe trains on it, TASK_TYPE_MISMATCH if others do.
    """
    if task is not Task.EMBEDDING:
        trained = [task_type for other, task_type in _TASK_TYPES.items() if other is not Task.EMBEDDING]
        check_supported(dataset.task_type, trained, "training_run.snapshot", dataset.name)
        check_task_type(task_type_of(task), dataset, "training_run.recipe", recipe)


def model_task_type_of(task: Task) -> TaskType.ValueType:
    """Returns the task type of the models that recipes of a task train."""
    return _TASK_TYPES[task]

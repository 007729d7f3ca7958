"""The task type of the datasets that each recipe can train on, and of its models."""

from vesta_common.errors import InvalidArgument, Violation
from vesta_common.media.task_types import check_supported, check_task_type, in_words, model_task_type
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.datasets.v1 import Dataset
from vesta_contracts.training.v1 import ModelVersion

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


def check_version(task: Task, recipe: str, version: ModelVersion, field: str) -> None:
    """Checks that a version has the task type of the models that recipes of a task train.

    Args:
        recipe: the name of the recipe, for the message.
        field: the path of the field that names the version, or its model.

    Raises:
        InvalidArgument: TASK_TYPE_MISMATCH.
    """
    expected, found = model_task_type_of(task), model_task_type(version)
    if found != expected:
        what = (
            f"{version.name} is for {in_words(found)}, but {recipe} trains models for {in_words(expected)}; choose another "
            f"{field.rpartition('.')[2]}, or another recipe"
        )
        raise InvalidArgument(f"{field}: {what}", reason="TASK_TYPE_MISMATCH", violations=[Violation(field, what)])

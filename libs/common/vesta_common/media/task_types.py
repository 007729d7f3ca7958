"""Task types: the annotations that each allows, those of models, and the check that what is made for a dataset has its task type."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from vesta_contracts.common.v1 import Annotation, TaskType
from vesta_contracts.datasets.v1 import Dataset
from vesta_contracts.training.v1 import ModelVersion

from vesta_common.errors import InvalidArgument, Violation

Module = TypeVar("Module")


@dataclass(frozen=True)
class AllowedAnnotations:
    """The annotations that the items of a dataset may have.

    Attributes:
        several_labels: whether an item may have several image labels.
        shapes: the allowed fields of the oneof `Annotation.shape`.
        is_map: whether each pixel has at most one concept: at most one mask per concept, without overlap.
    """

    several_labels: bool
    shapes: frozenset[str]
    is_map: bool = False


# Shapes beside the labels of an image are kept, and nothing is learned from them.
_ALL_SHAPES = frozenset(field.name for field in Annotation.DESCRIPTOR.oneofs_by_name["shape"].fields)
_ALLOWED = {
    TaskType.TASK_TYPE_CLASSIFICATION: AllowedAnnotations(several_labels=False, shapes=_ALL_SHAPES),
    TaskType.TASK_TYPE_MULTI_LABEL: AllowedAnnotations(several_labels=True, shapes=_ALL_SHAPES),
    TaskType.TASK_TYPE_DETECTION: AllowedAnnotations(several_labels=False, shapes=frozenset({"box"})),
    TaskType.TASK_TYPE_INSTANCE_SEGMENTATION: AllowedAnnotations(
        several_labels=False, shapes=frozenset({"polygon", "mask", "rotated_box"})
    ),
    TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION: AllowedAnnotations(
        several_labels=False, shapes=frozenset({"mask"}), is_map=True
    ),
    TaskType.TASK_TYPE_KEYPOINTS: AllowedAnnotations(several_labels=False, shapes=frozenset({"keypoints"})),
}


def known_task_type(task_type: TaskType.ValueType) -> TaskType.ValueType:
    """Returns the task type of a dataset or campaign; the default is classification."""
    return task_type or TaskType.TASK_TYPE_CLASSIFICATION


def allowed_annotations(task_type: TaskType.ValueType) -> AllowedAnnotations:
    """Returns the annotations that a task type allows.

    Raises:
        InvalidArgument: TASK_TYPE_UNSUPPORTED, datasets cannot have it.
    """
    return module_of(task_type, _ALLOWED, "dataset.task_type", "the dataset")


def module_of(
    task_type: TaskType.ValueType, modules: Mapping[TaskType.ValueType, Module], field: str, subject: str
) -> Module:
    """Returns the module of a task type from the registry of a service. Raises as `check_supported`."""
    check_supported(task_type, modules, field, subject)
    return modules[known_task_type(task_type)]


def check_supported(
    task_type: TaskType.ValueType, supported: Collection[TaskType.ValueType], field: str, subject: str
) -> None:
    """Checks that a service has a module for a task type.

    Args:
        field: the path of the field in the request.
        subject: what has the task type, for the message: `the dataset`, or its name.

    Raises:
        InvalidArgument: TASK_TYPE_UNSUPPORTED, with the task types that are supported.
    """
    if known_task_type(task_type) in supported:
        return
    *others, last = map(in_words, supported)
    what = (
        f"{subject} is for {in_words(task_type)}, which this service does not support; "
        f"choose {', '.join(others)} or {last}"
    )
    raise InvalidArgument(f"{field}: {what}", reason="TASK_TYPE_UNSUPPORTED", violations=[Violation(field, what)])


# The field `task` of model versions that were registered before they had a task type.
_WORDS_OF_RECIPES = {
    "classification": TaskType.TASK_TYPE_CLASSIFICATION,
    "multilabel": TaskType.TASK_TYPE_MULTI_LABEL,
    "embedding": TaskType.TASK_TYPE_EMBEDDING,
}


def model_task_type(version: ModelVersion) -> TaskType.ValueType:
    """Returns the task type of a model version."""
    return version.task_type or _WORDS_OF_RECIPES[version.task]


def makes_predictions(version: ModelVersion) -> bool:
    """False for a model that only computes embeddings."""
    return model_task_type(version) != TaskType.TASK_TYPE_EMBEDDING


def check_task_type(task_type: TaskType.ValueType, dataset: Dataset, field: str, subject: str) -> None:
    """Checks that the task type of something that is made for a dataset is that of the dataset. Unspecified suits all datasets.

    Args:
        field: the path of the field in the request.
        subject: what has the task type, for the message: `the campaign`, or the name of a recipe.

    Raises:
        InvalidArgument: TASK_TYPE_MISMATCH.
    """
    expected = known_task_type(dataset.task_type)
    if task_type in (TaskType.TASK_TYPE_UNSPECIFIED, expected):
        return
    what = (
        f"{subject} is for {in_words(task_type)}, but {dataset.name} is for {in_words(expected)}; "
        f"choose {in_words(expected)}, or another dataset"
    )
    raise InvalidArgument(f"{field}: {what}", reason="TASK_TYPE_MISMATCH", violations=[Violation(field, what)])


def in_words(task_type: TaskType.ValueType) -> str:
    """Returns a task type for messages, such as `multi-label`."""
    return TaskType.Name(known_task_type(task_type)).removeprefix("TASK_TYPE_").lower().replace("_", "-")

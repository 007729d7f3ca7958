"""Task types: what is made for a dataset has its task type."""

import pytest
from vesta_common.errors import InvalidArgument
from vesta_common.media.task_types import allowed_annotations, check_task_type, module_of
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.datasets.v1 import Dataset

UNSET, MULTI, SINGLE = (
    TaskType.TASK_TYPE_UNSPECIFIED,
    TaskType.TASK_TYPE_MULTI_LABEL,
    TaskType.TASK_TYPE_CLASSIFICATION,
)


@pytest.mark.parametrize(("requested", "task_type"), [(UNSET, SINGLE), (UNSET, MULTI), (SINGLE, UNSET), (MULTI, MULTI)])
def test_the_task_type_of_the_dataset_and_none_are_accepted(
    requested: TaskType.ValueType, task_type: TaskType.ValueType
) -> None:
    check_task_type(requested, Dataset(task_type=task_type), "campaign.task_type", "the campaign")


@pytest.mark.parametrize(("requested", "task_type"), [(MULTI, UNSET), (MULTI, SINGLE), (SINGLE, MULTI)])
def test_another_task_type_is_rejected_with_both_names(
    requested: TaskType.ValueType, task_type: TaskType.ValueType
) -> None:
    dataset = Dataset(name="projects/acme/datasets/d", task_type=task_type)
    with pytest.raises(InvalidArgument) as rejected:
        check_task_type(requested, dataset, "campaign.task_type", "the campaign")
    assert rejected.value.reason == "TASK_TYPE_MISMATCH"
    assert all(name in rejected.value.message for name in ("multi-label", "classification", dataset.name))


def test_a_task_type_without_a_module_is_rejected_with_those_that_have_one() -> None:
    modules = {SINGLE: "one label", MULTI: "several labels"}
    assert [module_of(known, modules, "it", "d") for known in (UNSET, SINGLE, MULTI)] == [
        "one label",
        "one label",
        "several labels",
    ]
    for task_type in set(TaskType.values()) - {UNSET, SINGLE, MULTI}:
        with pytest.raises(InvalidArgument, match=r"d is for .*; choose classification or multi-label") as rejected:
            module_of(task_type, modules, "it", "d")
        assert rejected.value.reason == "TASK_TYPE_UNSUPPORTED"


def test_the_default_allows_one_label() -> None:
    assert not allowed_annotations(UNSET).several_labels


def test_a_stored_dataset_with_several_labels_is_of_the_task_type_multi_label() -> None:
    """Datasets had a bool with the same number, `multi_label = 4`, which is 1 on the wire."""
    assert Dataset.FromString(b"\x20\x01").task_type == MULTI

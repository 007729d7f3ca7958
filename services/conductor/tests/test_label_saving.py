"""The estimate of labels saved, or the reason why there is none."""

import pytest
from vesta_conductor.reconciliation.label_saving import label_saving, random_image_objects, updated
from vesta_conductor.task_types import TASK_TYPES
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.conductor.v1 import Round
from vesta_contracts.datasets.v1 import SnapshotStatistics, SplitStatistics
from vesta_contracts.training.v1 import Estimate, RandomLabels, TrainingRun

LABELS, BOXES = (TASK_TYPES[TaskType.Value(f"TASK_TYPE_{name}")] for name in ("CLASSIFICATION", "DETECTION"))
RUN = "projects/acme/trainingRuns/vans-r3"
RANDOM = RandomLabels(labels=Estimate(value=400, low=300, high=500))


def a_run(random_labels: RandomLabels | None = None, *, pending: bool = False) -> TrainingRun:
    return TrainingRun(name=RUN, random_labels=random_labels, control_curve_pending=pending)


def test_labels_are_saved_if_random_selection_needs_more() -> None:
    found = label_saving(
        a_run(RandomLabels(labels=Estimate(value=333.4, low=200, high=520))), Round(label_count=300), LABELS
    )
    assert (found.saved_labels, found.spent_labels, found.reason) == (33, 300, "")
    assert found.random_labels == Estimate(value=333.4, low=200, high=520)


def test_a_negative_saving_is_reported() -> None:
    labels = RandomLabels(labels=Estimate(value=100, low=80, high=150))
    assert label_saving(a_run(labels), Round(label_count=300), LABELS).saved_labels == -200


def test_an_unknown_upper_bound_is_unset() -> None:
    labels = Estimate(value=400, low=200, high=1250)
    assert label_saving(
        a_run(RandomLabels(labels=labels, high_unknown=True)), Round(label_count=300), LABELS
    ).high_unknown


def test_a_saving_that_cannot_be_estimated_has_a_reason_and_no_value() -> None:
    found = label_saving(a_run(RandomLabels(reason="too few labels")), Round(label_count=60), LABELS)
    assert (found.reason, found.spent_labels) == ("too few labels", 60)
    assert not found.HasField("random_labels")


def test_missing_test_labels_are_the_reason() -> None:
    assert "test split" in label_saving(a_run(), Round(label_count=60), LABELS).reason


def test_the_saving_in_objects_is_smaller_if_the_chosen_images_have_more() -> None:
    found = label_saving(a_run(RANDOM), Round(label_count=200, object_count=1800, random_image_objects=5), BOXES)
    assert (found.random_objects, found.spent_objects, found.saved_objects) == (2000, 1800, 200)
    assert found.random_time.seconds == 400 * 2 + 2000 * 7
    assert found.spent_time.seconds == 200 * 2 + 1800 * 7


def test_labels_of_whole_images_have_a_time_and_no_objects() -> None:
    found = label_saving(a_run(RANDOM), Round(label_count=200, object_count=9), LABELS)
    assert (found.HasField("random_objects"), found.spent_objects) == (False, 0)
    assert (found.random_time.seconds, found.spent_time.seconds) == (800, 400)


def test_without_a_random_image_the_saving_in_objects_is_unknown() -> None:
    found = label_saving(a_run(RANDOM), Round(label_count=200, object_count=1800), BOXES)
    assert (found.saved_labels, found.spent_objects) == (200, 1800)
    assert not found.HasField("random_objects")
    assert not found.HasField("random_time")


@pytest.mark.parametrize(
    ("control", "test", "mean"),
    [
        ((0, 0), (0, 0, 0, 0), None),
        ((4, 10), (0, 0, 0, 0), 2.5),
        ((4, 10), (30, 30, 16, 50), 3),  # 60 objects in 20 images
        ((4, 10), (30, 29, 16, 50), 2.5),  # an item of the test split was assigned by the user
    ],
)
def test_random_images_are_those_of_the_control_arm_and_of_a_test_split_by_hash(
    control: tuple[int, int], test: tuple[int, int, int, int], mean: float | None
) -> None:
    item_count, hash_assigned_count, labelled_count, object_count = test
    split = SplitStatistics(
        split="TEST",
        item_count=item_count,
        hash_assigned_count=hash_assigned_count,
        labelled_count=labelled_count,
        object_count=object_count,
    )
    statistics = SnapshotStatistics(control_count=control[0], control_object_count=control[1], splits=[split])
    assert random_image_objects(statistics) == mean


def test_an_estimate_that_is_pending_is_updated_when_it_is_measured() -> None:
    rounds = [Round(label_count=20), Round(label_count=60, training_run=RUN)]
    pending = label_saving(a_run(pending=True), rounds[-1], LABELS)
    assert (pending.pending, pending.training_run, pending.HasField("random_labels")) == (True, RUN, False)
    assert updated(pending, a_run(pending=True), rounds, LABELS) == pending

    measured = updated(pending, a_run(RANDOM), rounds, LABELS)

    assert measured is not None
    assert (measured.pending, measured.saved_labels, measured.spent_labels, measured.reason) == (False, 340, 60, "")
    assert updated(measured, None, rounds, LABELS) == measured


def test_an_estimate_whose_run_is_deleted_has_a_reason() -> None:
    spent = Round(label_count=60, training_run=RUN)
    gone = updated(label_saving(a_run(pending=True), spent, LABELS), None, [spent], LABELS)
    assert gone is not None
    assert (gone.pending, gone.spent_labels) == (False, 60)
    assert "deleted" in gone.reason


def test_without_an_estimate_there_is_nothing_to_update() -> None:
    assert updated(None, None, [], LABELS) is None

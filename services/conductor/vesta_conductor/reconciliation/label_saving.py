"""Estimates the labels that active selection saved: the labels that random selection would need, minus the labels spent.

Annotators label images, and draw objects in them. Active selection prefers images with many objects, so that the saving in objects and in
time is smaller than that in images.
"""

from collections.abc import Iterable
from datetime import timedelta

from vesta_common.media.annotation_cost import drawing_seconds
from vesta_common.messages import copy_of
from vesta_contracts.conductor.v1 import LabelSaving, Round
from vesta_contracts.datasets.v1 import SnapshotStatistics
from vesta_contracts.training.v1 import TrainingRun

from vesta_conductor.task_types import LoopTask

PENDING = "random selection is still being measured"
RUN_DELETED = "the training run of the champion was deleted before random selection was measured"
NO_TEST_LABELS = "no item of the test split is labelled, so that the champion is not measured"


def label_saving(run: TrainingRun, spent: Round, task_type: LoopTask) -> LabelSaving:
    """Returns the saving, or the reason why it cannot be estimated, or not yet.

    Args:
        run: the champion's training run.
        spent: the round of the champion, with the labels and objects that it was trained on.
    """
    draw_seconds = task_type.draw_seconds
    saving = LabelSaving(spent_labels=spent.label_count, training_run=run.name)
    if draw_seconds is not None:
        saving.spent_objects = spent.object_count
    saving.spent_time.FromTimedelta(_time(spent.label_count, saving.spent_objects, draw_seconds))
    random_labels = run.random_labels
    if run.control_curve_pending:
        saving.pending, saving.reason = True, PENDING
        return saving
    if not random_labels.HasField("labels"):
        saving.reason = random_labels.reason or NO_TEST_LABELS
        return saving
    count = random_labels.labels.value
    saving.random_labels.CopyFrom(random_labels.labels)
    saving.saved_labels = round(count) - spent.label_count
    saving.high_unknown = random_labels.high_unknown
    if draw_seconds is None:
        saving.random_time.FromTimedelta(_time(count, 0, draw_seconds))
    elif spent.HasField("random_image_objects"):
        saving.random_objects = count * spent.random_image_objects
        saving.saved_objects = round(saving.random_objects) - spent.object_count
        saving.random_time.FromTimedelta(_time(count, saving.random_objects, draw_seconds))
    return saving


def updated(
    saving: LabelSaving | None, run: TrainingRun | None, rounds: Iterable[Round], task_type: LoopTask
) -> LabelSaving | None:
    """Returns an earlier estimate, or its value if it has been measured since then.

    Args:
        run: the run that measures it; None if it does not exist.
        rounds: with that of the run.
    """
    if saving is None or not saving.pending:
        return saving
    spent = next((found for found in rounds if found.training_run == saving.training_run), None)
    if run is None or spent is None:
        gone = copy_of(saving)
        gone.pending, gone.reason = False, RUN_DELETED
        return gone
    return label_saving(run, spent, task_type)


def random_image_objects(statistics: SnapshotStatistics) -> float | None:
    """Returns the mean number of objects of randomly drawn images of a snapshot; None if it has none.

    These are the images of the control arm and, if the content hash assigned all of them, those of the test split.
    """
    images, objects = statistics.control_count, statistics.control_object_count
    for split in statistics.splits:
        if split.split == "TEST" and split.hash_assigned_count == split.item_count:
            images += split.labelled_count
            objects += split.object_count
    return objects / images if images else None


def _time(image_count: float, object_count: float, draw_seconds: float | None) -> timedelta:
    return timedelta(seconds=round(drawing_seconds(image_count, object_count, draw_seconds)))

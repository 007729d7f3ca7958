"""Decides which tasks are blind, and removes the model's prediction from tasks for callers who must not see it. Pure."""

from collections.abc import Collection

from vesta_common.messages import without
from vesta_common.resources.etags import with_etag
from vesta_contracts.annotation.v1 import Task
from vesta_contracts.datasets.v1 import Item, Split

_PROMPTS = ("pre_annotations", "model_version", "prediction_certain", "selection_reason")


def is_blind(task: Task, item: Item) -> bool:
    """Whether the answer is used to measure models: the control arm drew the item, or it is in the test split."""
    return task.control or item.split == Split.SPLIT_TEST


def hides_prompts(task: Task, blind_items: Collection[str], *, answering: bool, annotator: bool) -> bool:
    """Whether the model's prediction is hidden from a caller.

    Args:
        blind_items: the items of undecided blind tasks, in any campaign.
        answering: whether the caller leases the task to annotate it.
        annotator: whether the caller has the annotator role. Annotators never see the prediction of a blind task, because a review
            may return the task to them.
    """
    return (annotator and task.blind) or ((annotator or answering) and task.item in blind_items)


def without_prompts(task: Task) -> Task:
    """Returns the task without the model's prediction; its etag is computed without it."""
    leases = task.leases
    unprompted = with_etag(without(task, *_PROMPTS, "leases"))  # leases do not change an etag
    unprompted.leases.extend(leases)
    return unprompted

"""Which tasks are blind, and what is taken out of a task for whoever must not see what a model thinks. Pure."""

from collections.abc import Collection

from vesta_common.messages import without
from vesta_common.resources.etags import with_etag
from vesta_contracts.annotation.v1 import Task
from vesta_contracts.datasets.v1 import Item, Split

_PROMPTS = ("pre_annotations", "model_version", "selection_reason")


def is_blind(task: Task, item: Item) -> bool:
    """Whether the answer measures models: the control arm drew the item, or it is on the test side."""
    return task.control or item.split == Split.SPLIT_TEST


def hides_prompts(task: Task, blind_items: Collection[str], *, answering: bool, annotator: bool) -> bool:
    """Whether what the model thinks is hidden from a caller.

    Args:
        blind_items: the items that an undecided blind task, of any campaign, asks about.
        answering: the caller leases the task to annotate it.
        annotator: the caller's role is to annotate. Of a blind task they never see it: a review may send it back to them.
    """
    return (annotator and task.blind) or ((annotator or answering) and task.item in blind_items)


def without_prompts(task: Task) -> Task:
    """The task without what a model thinks of its item; its etag follows from what is left."""
    leases = task.leases
    unprompted = with_etag(without(task, *_PROMPTS, "leases"))  # leases do not change an etag
    unprompted.leases.extend(leases)
    return unprompted

"""Estimates live accuracy from the control arm, whose items are drawn at random from the unlabelled items of that time.

The answers are a fair sample of those items, but not of all items that ever arrived: selection removes the hard items from the pool
first, and the remaining ones are easier. The longer a pool is labelled without new items, the more optimistic the estimate.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from vesta_common.intervals import wilson
from vesta_contracts.annotation.v1 import Task
from vesta_contracts.training.v1 import Estimate

from vesta_conductor.task_types import LoopTask

ANSWERS_MIN = 30  # with fewer answers for the newest model, the answers for earlier models are pooled with them


@dataclass(frozen=True)
class LiveAccuracy:
    """How often the prediction of the deployed model equalled the accepted answer.

    Attributes:
        estimate: with a Wilson interval.
        answer_count: the number of answers.
        model_count: the number of model versions; more than one if the newest has too few answers.
    """

    estimate: Estimate
    answer_count: int
    model_count: int


def live_accuracy(tasks: Iterable[Task], *, model: str, task_type: LoopTask) -> LiveAccuracy | None:
    """Returns the accuracy of the newest version, or of the newest few together, on items that were unlabelled at that time.

    Args:
        tasks: decided tasks of the control arm, in any order. Ignores tasks without a classifier's pre-annotations (drawn
            before there was a classifier) and tasks whose answer consists of shapes alone.
        model: the Loop's model. Only pre-annotations of its versions count.
        task_type: compares predictions with answers.

    Returns:
        None if there is no such task.
    """
    by_version: dict[int, list[bool]] = {}
    for task in tasks:
        version = _version(task, model)
        if version is not None and (is_correct := task_type.is_correct(task)) is not None:
            by_version.setdefault(version, []).append(is_correct)
    answers: list[bool] = []
    models = 0
    for version in sorted(by_version, reverse=True):
        answers += by_version[version]
        models += 1
        if len(answers) >= ANSWERS_MIN:
            break
    if not answers:
        return None
    return LiveAccuracy(wilson(sum(answers), len(answers)), len(answers), models)


def _version(task: Task, model: str) -> int | None:
    """Returns the number of the version that made the pre-annotations; None if it is not a version of `model`."""
    head, _, number = task.model_version.rpartition("/versions/")
    return int(number) if head == model and number.isdecimal() else None

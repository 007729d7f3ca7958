"""Estimates live accuracy, and the errors of accepted predictions, from the control arm.

Its items are drawn at random from the unlabelled items of that time. The answers are a fair sample of those
items, but not of all items that ever arrived: selection removes the hard items from the pool first, and the remaining ones are easier.
The longer a pool is labelled without new items, the more optimistic the estimate.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from vesta_common.intervals import wilson
from vesta_common.risk_control import Limits, error_interval
from vesta_contracts.annotation.v1 import Task
from vesta_contracts.conductor.v1 import AcceptedErrors
from vesta_contracts.serving.v1 import UncertaintyPolicy
from vesta_contracts.training.v1 import Estimate, ModelVersion

from vesta_conductor.task_types import LoopTask

ANSWERS_MIN = 30  # with fewer answers for the newest model, the answers for earlier models are pooled with them

Compared = tuple[Task, bool]
"""A decided task, and whether its prediction was right."""


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
    answers, models = _newest(_compared(tasks, model, task_type))
    if not answers:
        return None
    right = sum(is_correct for _, is_correct in answers)
    return LiveAccuracy(wilson(right, len(answers)), len(answers), models)


def accepted_errors(
    tasks: Iterable[Task], *, model: str, task_type: LoopTask, policy: UncertaintyPolicy, version: ModelVersion
) -> AcceptedErrors | None:
    """Returns the errors among the predictions of the newest version, or of the newest few together, that were certain.

    Args:
        tasks: decided tasks of the control arm; see `live_accuracy`.
        policy: of the deployment.
        version: that the deployment serves.

    Returns:
        None if no certain prediction was compared.
    """
    compared = _compared(tasks, model, task_type)
    certain = {version: [one for one in answers if one[0].prediction_certain] for version, answers in compared.items()}
    answers, models = _newest({version: found for version, found in certain.items() if found})
    if not answers:
        return None
    oldest = sorted((version for version, found in certain.items() if found), reverse=True)[models - 1]
    errors = AcceptedErrors(
        error_rate=error_interval(sum(not is_correct for _, is_correct in answers), len(answers)),
        answer_count=len(answers),
        control_answer_count=sum(len(found) for version, found in compared.items() if version >= oldest),
    )
    if (limits := Limits.of(policy, version)) is not None:
        rates = [limits.rate(limits.group(one.concept for one in task.pre_annotations)) for task, _ in answers]
        errors.error_rate_max = fmean(rates)
        errors.exceeded = len(answers) >= ANSWERS_MIN and errors.error_rate.low > errors.error_rate_max
    return errors


def _compared(tasks: Iterable[Task], model: str, task_type: LoopTask) -> dict[int, list[Compared]]:
    """Returns the tasks whose prediction can be compared with the answer, by the number of the version that predicted."""
    by_version: dict[int, list[Compared]] = {}
    for task in tasks:
        version = _version(task, model)
        if version is not None and (is_correct := task_type.is_correct(task)) is not None:
            by_version.setdefault(version, []).append((task, is_correct))
    return by_version


def _newest(by_version: Mapping[int, Sequence[Compared]]) -> tuple[list[Compared], int]:
    """Returns the answers for the newest versions that have `ANSWERS_MIN` together, and the number of these versions."""
    answers: list[Compared] = []
    models = 0
    for version in sorted(by_version, reverse=True):
        answers += by_version[version]
        models += 1
        if len(answers) >= ANSWERS_MIN:
            break
    return answers, models


def _version(task: Task, model: str) -> int | None:
    """Returns the number of the version that made the pre-annotations; None if it is not a version of `model`."""
    head, _, number = task.model_version.rpartition("/versions/")
    return int(number) if head == model and number.isdecimal() else None

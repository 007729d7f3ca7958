"""Estimates live accuracy, and the errors of accepted predictions, from the control arm.

Its items are drawn at random from the unlabelled items of that time. The answers are a fair sample of those
items, but not of all items that ever arrived: selection removes the hard items from the pool first, and the remaining ones are easier.
The longer a pool is labelled without new items, the more optimistic the estimate.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from vesta_common.intervals import wilson
from vesta_common.risk_control import Limits, error_interval
from vesta_contracts.annotation.v1 import Task
from vesta_contracts.conductor.v1 import AcceptedErrors
from vesta_contracts.serving.v1 import UncertaintyPolicy
from vesta_contracts.training.v1 import Estimate, ModelVersion

from vesta_conductor.task_types import LoopTask

ANSWERS_MIN = 30  # with fewer answers for the newest model, the answers for earlier models are pooled with them


class ControlAnswer(NamedTuple):
    """A decided task of the control arm, compared with the prediction that its annotator did not see.

    Attributes:
        model_version: that made the prediction.
        concepts: that it predicted.
        is_correct: whether it equals the accepted answer.
        is_certain: whether it would have been accepted without a human.
    """

    model_version: str
    concepts: frozenset[str]
    is_correct: bool
    is_certain: bool

    @classmethod
    def find(cls, task: Task, task_type: LoopTask) -> "ControlAnswer | None":
        """Returns None for a task without a prediction, or whose answer consists of shapes beside the task type."""
        is_correct = task_type.is_correct(task) if task.model_version else None
        if is_correct is None:
            return None
        concepts = frozenset(one.concept for one in task.pre_annotations)
        return cls(task.model_version, concepts, is_correct, task.prediction_certain)


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


def live_accuracy(control: Iterable[ControlAnswer], *, model: str) -> LiveAccuracy | None:
    """Returns the accuracy of the newest version, or of the newest few together, on items that were unlabelled at that time.

    Args:
        control: in any order.
        model: the Loop's model. Only predictions of its versions count.

    Returns:
        None if there is no such answer.
    """
    answers, models = _newest(_by_version(control, model))
    if not answers:
        return None
    right = sum(answer.is_correct for answer in answers)
    return LiveAccuracy(wilson(right, len(answers)), len(answers), models)


def accepted_errors(
    control: Iterable[ControlAnswer], *, model: str, policy: UncertaintyPolicy, version: ModelVersion
) -> AcceptedErrors | None:
    """Returns the errors among the predictions of the newest version, or of the newest few together, that were certain.

    Args:
        control: see `live_accuracy`.
        policy: of the deployment.
        version: that the deployment serves.

    Returns:
        None if no certain prediction was compared.
    """
    compared = _by_version(control, model)
    certain = {version: [one for one in answers if one.is_certain] for version, answers in compared.items()}
    answers, models = _newest({version: found for version, found in certain.items() if found})
    if not answers:
        return None
    oldest = sorted((version for version, found in certain.items() if found), reverse=True)[models - 1]
    errors = AcceptedErrors(
        error_rate=error_interval(sum(not answer.is_correct for answer in answers), len(answers)),
        answer_count=len(answers),
        control_answer_count=sum(len(found) for version, found in compared.items() if version >= oldest),
    )
    if (limits := Limits.of(policy, version)) is not None:
        rates = [limits.rate(limits.group(answer.concepts)) for answer in answers]
        errors.error_rate_max = fmean(rates)
        errors.exceeded = len(answers) >= ANSWERS_MIN and errors.error_rate.low > errors.error_rate_max
    return errors


def _by_version(control: Iterable[ControlAnswer], model: str) -> dict[int, list[ControlAnswer]]:
    """Returns the answers by the number of the version that predicted; without those of other models."""
    by_version: dict[int, list[ControlAnswer]] = {}
    for answer in control:
        head, _, number = answer.model_version.rpartition("/versions/")
        if head == model and number.isdecimal():
            by_version.setdefault(int(number), []).append(answer)
    return by_version


def _newest(by_version: Mapping[int, Sequence[ControlAnswer]]) -> tuple[list[ControlAnswer], int]:
    """Returns the answers for the newest versions that have `ANSWERS_MIN` together, and the number of these versions."""
    answers: list[ControlAnswer] = []
    models = 0
    for version in sorted(by_version, reverse=True):
        answers += by_version[version]
        models += 1
        if len(answers) >= ANSWERS_MIN:
            break
    return answers, models

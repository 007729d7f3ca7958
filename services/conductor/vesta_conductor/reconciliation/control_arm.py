"""What the control arm tells of live accuracy: its items were drawn blindly from what was unlabelled then.

So their answers are a fair sample of that, and not of all that ever arrived: choosing takes the hard items out of the pool first,
and what is left is easier. The longer a pool is worked on without new items, the kinder the estimate.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vesta_common.media.image_labels import image_labels
from vesta_contracts.annotation.v1 import Task
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.training.v1 import Estimate

ANSWERS_MIN = 30  # fewer of one model's tell too little, and those of the models before are pooled with them
Z_95 = 1.959963984540054


@dataclass(frozen=True)
class LiveAccuracy:
    """How often the model that was deployed had said what experts then accepted.

    Attributes:
        estimate: Wilson interval.
        answer_count: answers it rests on.
        model_count: versions that gave them; more than one where the newest alone has too few.
    """

    estimate: Estimate
    answer_count: int
    model_count: int


def live_accuracy(tasks: Iterable[Task], *, model: str, multi_label: bool) -> LiveAccuracy | None:
    """The accuracy on the pool that was unlabelled then, of the newest version, or of the newest few together.

    Args:
        tasks: decided tasks of the control arm, in any order. Those that bear no classifier's pre-annotation (drawn
            before there was a classifier) are left out, and those whose answer is shapes alone.
        model: the Loop's model; pre-annotations of its versions count.
        multi_label: whether a right answer is the whole set of labels that the deployment predicted, or the best label alone.

    Returns:
        None where there is no such task.
    """
    by_version: dict[int, list[bool]] = {}
    for task in tasks:
        version = _version(task, model)
        if version is None or not (task.pre_annotations or multi_label) or image_labels(task.accepted) is None:
            continue
        by_version.setdefault(version, []).append(_right(task, multi_label=multi_label))
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


def wilson(right_count: int, count: int) -> Estimate:
    """A share with its 95 % Wilson score interval (Wilson, 1927), which holds for few answers too.

    Raises:
        ValueError: `count` is not positive.
    """
    if count <= 0:
        raise ValueError("a share of nothing has no interval")
    share = right_count / count
    spread = Z_95 * math.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2))
    centre = share + Z_95**2 / (2 * count)
    scale = 1 + Z_95**2 / count
    return Estimate(
        value=share,
        low=max(0.0, min(share, (centre - spread) / scale)),
        high=min(1.0, max(share, (centre + spread) / scale)),
    )


def _version(task: Task, model: str) -> int | None:
    """The number of the version whose pre-annotation was shown; None where it is not one of `model`."""
    head, _, number = task.model_version.rpartition("/versions/")
    return int(number) if head == model and number.isdecimal() else None


def _right(task: Task, *, multi_label: bool) -> bool:
    accepted = set(image_labels(task.accepted) or ())
    if multi_label:
        return {annotation.concept for annotation in task.pre_annotations} == accepted
    return {_best(task.pre_annotations).concept} == accepted


def _best(annotations: Sequence[Annotation]) -> Annotation:
    return max(annotations, key=lambda annotation: annotation.score)

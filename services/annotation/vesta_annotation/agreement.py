"""How far experts agree: Krippendorff's alpha over a campaign, and each expert against the others. Pure."""

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import krippendorff
import numpy as np
from vesta_contracts.annotation.v1 import Agreement, AnnotatorAgreement
from vesta_contracts.common.v1 import Annotation

from vesta_annotation.consensus import answer_key


@dataclass(frozen=True)
class Answer:
    """One expert's answer to one task, and what was accepted in the end; None where the task is not decided."""

    task: str
    annotator: str
    annotations: Sequence[Annotation]
    accepted: Sequence[Annotation] | None


def measure_agreement(answers: Sequence[Answer]) -> Agreement:
    """Agreement of a campaign (K. Krippendorff, Content Analysis, 2004; nominal values: equal answers or not)."""
    by_task: dict[str, dict[str, tuple[bytes, ...]]] = defaultdict(dict)
    for answer in answers:
        by_task[answer.task][answer.annotator] = answer_key(answer.annotations)
    shared = {task: given for task, given in by_task.items() if len(given) > 1}
    annotators = sorted({answer.annotator for answer in answers})
    agreement = Agreement(task_count=len(shared), annotators=[_annotator(one, answers, shared) for one in annotators])
    alpha = _alpha(shared, annotators)
    if alpha is not None:
        agreement.alpha = alpha
    return agreement


def _annotator(
    annotator: str, answers: Sequence[Answer], shared: Mapping[str, Mapping[str, tuple[bytes, ...]]]
) -> AnnotatorAgreement:
    own = [answer for answer in answers if answer.annotator == annotator]
    decided = [answer for answer in own if answer.accepted is not None]
    found = AnnotatorAgreement(annotator=annotator, submission_count=len(own), decided_count=len(decided))
    if decided:
        right = sum(answer_key(answer.annotations) == answer_key(answer.accepted or ()) for answer in decided)
        found.accuracy = right / len(decided)
    theirs = {task: given for task, given in shared.items() if annotator in given}
    alpha = _alpha(theirs, sorted({who for given in theirs.values() for who in given}))
    if alpha is not None:
        found.alpha = alpha
    return found


def _alpha(shared: Mapping[str, Mapping[str, tuple[bytes, ...]]], annotators: Sequence[str]) -> float | None:
    """Alpha over tasks with two answers or more; None with fewer than two such tasks. Where all say the same it is 1."""
    if len(shared) < 2:
        return None
    values = sorted({value for given in shared.values() for value in given.values()})
    if len(values) == 1:
        return 1.0
    number = {value: float(index) for index, value in enumerate(values)}
    matrix = [[number[given[who]] if who in given else np.nan for given in shared.values()] for who in annotators]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alpha = krippendorff.alpha(reliability_data=np.array(matrix), level_of_measurement="nominal")
    return float(alpha)

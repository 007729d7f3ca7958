"""Statistics of a campaign's answers: Krippendorff's alpha, and the accuracy, agreement and time of each annotator. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import combinations
from statistics import median
from typing import Any

from google.protobuf.duration_pb2 import Duration
from vesta_contracts.annotation.v1 import Agreement, AnnotatorAgreement

from vesta_annotation.concept_agreement import Parts, agreement_by_concept, matched_f1
from vesta_annotation.task_types import AnnotationTask


@dataclass(frozen=True)
class Answer:
    """One annotator's answer to one task.

    Attributes:
        value: what the task type compares; None if the task is not measured.
        accepted: the value that was accepted; None while the task is undecided, and if it is not measured.
        is_accepted: whether the task is accepted.
        is_measured: whether the task is one of those from which the agreement is estimated. The others are only counted.
        rejected: whether a reviewer rejected it. A rejected answer counts for its author's accuracy, but not for agreement.
        time_spent: how long the annotator worked on the task; None if the client did not send it.
    """

    task: str
    annotator: str
    value: Any
    accepted: Any
    is_accepted: bool
    is_measured: bool = True
    rejected: bool = False
    time_spent: timedelta | None = None

    @property
    def decided(self) -> bool:
        """Whether the answer is known to be right or wrong."""
        return self.rejected or self.is_accepted


def measure_agreement(answers: Sequence[Answer], task_type: AnnotationTask[Any]) -> Agreement:
    """Returns the agreement of a campaign.

    Args:
        answers: at most one non-rejected answer per task and annotator, in any order.
    """
    by_task: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    by_annotator: defaultdict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if not answer.rejected:
            by_task[answer.task][answer.annotator] = answer.value
        by_annotator[answer.annotator].append(answer)
    shared = [given for given in by_task.values() if len(given) > 1]
    task_count = len(shared)
    shared = [given for given in shared if None not in given.values()]
    units = [[*given.values()] for given in shared]
    compared = [pair for unit in units for pair in combinations(unit, 2)]
    parts = Parts(task_type)
    stated = [answer.value for answer in answers if answer.is_measured]
    return Agreement(
        task_count=task_count,
        alpha=task_type.alpha(units),
        time_spent=_median_time(answers),
        concepts=agreement_by_concept(units, stated, compared, parts),
        annotators=[_of_annotator(*entry, shared, parts) for entry in sorted(by_annotator.items())],
    )


def _of_annotator(
    annotator: str, own: Sequence[Answer], shared: Iterable[Mapping[str, Any]], parts: Parts
) -> AnnotatorAgreement:
    """Returns the agreement of one annotator with the others, and with the accepted annotations."""
    task_type = parts.task_type
    decided = [answer for answer in own if answer.decided]
    known = sum(answer.is_measured for answer in decided)
    compared = [(answer.value, answer.accepted) for answer in own if answer.accepted is not None]
    right = sum(task_type.agree(value, accepted) for value, accepted in compared)
    pairs = list(_pairs_with(annotator, shared))
    stated = [answer.value for answer in own if answer.is_measured]
    return AnnotatorAgreement(
        annotator=annotator,
        submission_count=len(own),
        decided_count=len(decided),
        accuracy=right / known if known else None,
        alpha=task_type.alpha(pairs),
        time_spent=_median_time(own),
        f1=matched_f1(compared, task_type),
        concepts=agreement_by_concept(pairs, stated, compared, parts),
    )


def _median_time(answers: Iterable[Answer]) -> Duration | None:
    """Returns the median over the answers with a time. A screen left open over lunch would distort the mean."""
    seconds = [answer.time_spent.total_seconds() for answer in answers if answer.time_spent is not None]
    if not seconds:
        return None
    middle = Duration()
    middle.FromTimedelta(timedelta(seconds=median(seconds)))
    return middle


def _pairs_with(annotator: str, shared: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Any, Any]]:
    """Pairs the annotator's answer with each other annotator's, so that disagreement among the others does not count."""
    for given in shared:
        if annotator in given:
            yield from ((given[annotator], value) for other, value in given.items() if other != annotator)

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

from vesta_annotation.concept_agreement import agreement_by_concept, matched_f1
from vesta_annotation.task_types import AnnotationTask


@dataclass(frozen=True)
class Answer:
    """One annotator's answer to one task.

    Attributes:
        value: what the task type compares.
        accepted: the value that was accepted; None while the task is undecided.
        rejected: whether a reviewer rejected it. A rejected answer counts for its author's accuracy, but not for agreement.
        time_spent: how long the annotator worked on the task; None if the client did not send it.
    """

    task: str
    annotator: str
    value: Any
    accepted: Any
    rejected: bool = False
    time_spent: timedelta | None = None

    @property
    def decided(self) -> bool:
        """Whether the answer is known to be right or wrong."""
        return self.rejected or self.accepted is not None


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
    units = [[*given.values()] for given in shared]
    compared = [pair for unit in units for pair in combinations(unit, 2)]
    stated = [answer.value for answer in answers]
    return Agreement(
        task_count=len(shared),
        alpha=task_type.alpha(units),
        time_spent=_median_time(answers),
        concepts=agreement_by_concept(units, stated, compared, task_type),
        annotators=[_of_annotator(*entry, shared, task_type) for entry in sorted(by_annotator.items())],
    )


def _of_annotator(
    annotator: str, own: Sequence[Answer], shared: Iterable[Mapping[str, Any]], task_type: AnnotationTask[Any]
) -> AnnotatorAgreement:
    """Returns the agreement of one annotator with the others, and with the accepted annotations."""
    decided = [answer for answer in own if answer.decided]
    compared = [(answer.value, answer.accepted) for answer in own if answer.accepted is not None]
    right = sum(task_type.agree(value, accepted) for value, accepted in compared)
    pairs = list(_pairs_with(annotator, shared))
    stated = [answer.value for answer in own]
    return AnnotatorAgreement(
        annotator=annotator,
        submission_count=len(own),
        decided_count=len(decided),
        accuracy=right / len(decided) if decided else None,
        alpha=task_type.alpha(pairs),
        time_spent=_median_time(own),
        f1=matched_f1(compared, task_type),
        concepts=agreement_by_concept(pairs, stated, compared, task_type),
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

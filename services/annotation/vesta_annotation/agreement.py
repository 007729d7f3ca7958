"""Statistics of a campaign's answers: Krippendorff's alpha, and the accuracy, agreement and time of each annotator. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median

from google.protobuf.duration_pb2 import Duration
from vesta_contracts.annotation.v1 import Agreement, AnnotatorAgreement

from vesta_annotation.task_types import AnnotationTask
from vesta_annotation.task_types.annotation_task import Value


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
    value: Value
    accepted: Value | None
    rejected: bool = False
    time_spent: timedelta | None = None

    @property
    def decided(self) -> bool:
        """Whether the answer is known to be right or wrong."""
        return self.rejected or self.accepted is not None


def measure_agreement(answers: Sequence[Answer], task_type: AnnotationTask) -> Agreement:
    """Returns the agreement of a campaign.

    Args:
        answers: at most one non-rejected answer per task and annotator, in any order.
    """
    by_task: defaultdict[str, dict[str, Value]] = defaultdict(dict)
    by_annotator: defaultdict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if not answer.rejected:
            by_task[answer.task][answer.annotator] = answer.value
        by_annotator[answer.annotator].append(answer)
    shared = {task: given for task, given in by_task.items() if len(given) > 1}
    agreement = Agreement(
        task_count=len(shared),
        alpha=task_type.alpha([*given.values()] for given in shared.values()),
        time_spent=_median_time(answers),
    )
    for annotator, own in sorted(by_annotator.items()):
        decided = [answer for answer in own if answer.decided]
        right = sum(
            answer.accepted is not None and task_type.agree(answer.value, answer.accepted) for answer in decided
        )
        agreement.annotators.append(
            AnnotatorAgreement(
                annotator=annotator,
                submission_count=len(own),
                decided_count=len(decided),
                accuracy=right / len(decided) if decided else None,
                alpha=task_type.alpha(_pairs_with(annotator, shared.values())),
                time_spent=_median_time(own),
            )
        )
    return agreement


def _median_time(answers: Iterable[Answer]) -> Duration | None:
    """Returns the median over the answers with a time. A screen left open over lunch would distort the mean."""
    seconds = [answer.time_spent.total_seconds() for answer in answers if answer.time_spent is not None]
    if not seconds:
        return None
    middle = Duration()
    middle.FromTimedelta(timedelta(seconds=median(seconds)))
    return middle


def _pairs_with(annotator: str, shared: Iterable[Mapping[str, Value]]) -> Iterator[tuple[Value, Value]]:
    """Pairs the annotator's answer with each other annotator's, so that disagreement among the others does not count."""
    for given in shared:
        if annotator in given:
            yield from ((given[annotator], value) for other, value in given.items() if other != annotator)

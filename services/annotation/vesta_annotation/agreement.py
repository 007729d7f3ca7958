"""How far experts agree, how each fares beside the others, and how long they take. Krippendorff's alpha over a campaign. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median

from google.protobuf.duration_pb2 import Duration
from vesta_contracts.annotation.v1 import Agreement, AnnotatorAgreement


@dataclass(frozen=True)
class Answer:
    """One expert's answer to one task.

    Attributes:
        value: equal for answers that say the same.
        accepted: what was accepted in the end; None where the task is not decided.
        rejected: whether a reviewer sent it back. It counts for its author's accuracy, and no more for agreement.
        time_spent: how long its author looked; None where nobody said.
    """

    task: str
    annotator: str
    value: bytes
    accepted: bytes | None
    rejected: bool = False
    time_spent: timedelta | None = None

    @property
    def decided(self) -> bool:
        """Whether it is known to be right or wrong."""
        return self.rejected or self.accepted is not None


def measure_agreement(answers: Sequence[Answer]) -> Agreement:
    """The agreement of a campaign.

    Args:
        answers: at most one that was not rejected for each task and annotator, in any order.
    """
    by_task: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
    by_annotator: defaultdict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if not answer.rejected:
            by_task[answer.task][answer.annotator] = answer.value
        by_annotator[answer.annotator].append(answer)
    shared = {task: given for task, given in by_task.items() if len(given) > 1}
    agreement = Agreement(
        task_count=len(shared),
        alpha=nominal_alpha(given.values() for given in shared.values()),
        time_spent=_median_time(answers),
    )
    for annotator, own in sorted(by_annotator.items()):
        decided = [answer for answer in own if answer.decided]
        right = sum(answer.value == answer.accepted for answer in decided)
        agreement.annotators.append(
            AnnotatorAgreement(
                annotator=annotator,
                submission_count=len(own),
                decided_count=len(decided),
                accuracy=right / len(decided) if decided else None,
                alpha=nominal_alpha(_pairs_with(annotator, shared.values())),
                time_spent=_median_time(own),
            )
        )
    return agreement


def _median_time(answers: Iterable[Answer]) -> Duration | None:
    """Of the answers that say it; the median, for a screen left open over lunch would move the mean."""
    seconds = [answer.time_spent.total_seconds() for answer in answers if answer.time_spent is not None]
    if not seconds:
        return None
    middle = Duration()
    middle.FromTimedelta(timedelta(seconds=median(seconds)))
    return middle


def _pairs_with(annotator: str, shared: Iterable[Mapping[str, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Their answer beside each other expert's, so that what others disagree about among themselves is not held against them."""
    for given in shared:
        if annotator in given:
            yield from ((given[annotator], value) for other, value in given.items() if other != annotator)


def nominal_alpha(units: Iterable[Iterable[bytes]]) -> float | None:
    """Krippendorff's alpha for values that are equal or not: 1 is perfect agreement, 0 is chance, below is worse.

    K. Krippendorff, Content Analysis, 4th ed., 2019, §12.3. Linear in the number of answers; a table of coincidences would have a cell
    for each pair of values, and of drawn shapes hardly two are equal.

    Args:
        units: for each task what its experts answered, two answers or more.

    Returns:
        None with fewer than two tasks; 1 where nobody ever said anything else.
    """
    counts = [Counter(values) for values in units]
    if len(counts) < 2:
        return None
    totals: Counter[bytes] = Counter()
    for count in counts:
        totals.update(count)
    value_count = totals.total()
    observed = sum(_unequal_pairs(count) / (count.total() - 1) for count in counts) / value_count
    expected = _unequal_pairs(totals) / (value_count * (value_count - 1))
    return 1 - observed / expected if expected else 1.0


def _unequal_pairs(counts: Counter[bytes]) -> int:
    """Ordered pairs of values that differ."""
    return counts.total() ** 2 - sum(count**2 for count in counts.values())

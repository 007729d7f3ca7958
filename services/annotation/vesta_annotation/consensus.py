"""What several answers to one task amount to. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vesta_contracts.annotation.v1 import Submission
from vesta_contracts.common.v1 import Annotation


@dataclass(frozen=True)
class Consensus:
    """What most experts say.

    Attributes:
        annotations: the majority's answer.
        annotators: who gave it.
        unanimous: nobody said otherwise.
    """

    annotations: tuple[Annotation, ...]
    annotators: tuple[str, ...]
    unanimous: bool


def answer_key(annotations: Sequence[Annotation]) -> tuple[bytes, ...]:
    """What makes two answers the same: the concepts, shapes and attributes, whatever their order; scores aside."""
    keys = []
    for annotation in annotations:
        plain = Annotation()
        plain.CopyFrom(annotation)
        plain.ClearField("score")
        keys.append(plain.SerializeToString(deterministic=True))
    return tuple(sorted(keys))


def find_consensus(submissions: Sequence[Submission]) -> Consensus | None:
    """The answer that more than half of the experts gave; None where there is none.

    Args:
        submissions: the answers of one round, at least one, in order of time.
    """
    counts = Counter(answer_key(submission.annotations) for submission in submissions)
    best, count = counts.most_common(1)[0]
    if 2 * count <= len(submissions):
        return None
    agreeing = [submission for submission in submissions if answer_key(submission.annotations) == best]
    return Consensus(
        annotations=tuple(agreeing[0].annotations),
        annotators=tuple(submission.annotator for submission in agreeing),
        unanimous=len(counts) == 1,
    )

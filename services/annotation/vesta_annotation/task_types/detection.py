"""Detection: the boxes of answers are matched, and each object is decided by the majority of the annotators."""

from collections.abc import Iterable, Sequence

from vesta_contracts.annotation.v1 import Submission
from vesta_contracts.common.v1 import Annotation

from vesta_annotation.alpha import distance_alpha
from vesta_annotation.task_types.annotation_task import AnnotationTask, Consensus, Value
from vesta_annotation.task_types.boxes import drawn_objects, match


class Detection(AnnotationTask):
    """Boxes. No box is an answer too: nothing is in the image."""

    def key(self, annotations: Sequence[Annotation]) -> None:  # noqa: ARG002
        return None

    def consensus(self, answers: Sequence[Submission]) -> Consensus:
        """Keeps the objects that more than half of the annotators drew with one concept, and drops those that fewer than half drew."""
        accepted, disputed = [], []
        agreeing = set(range(len(answers)))
        for drawn in drawn_objects([answer.annotations for answer in answers]):
            concept, count = drawn.statement
            if 2 * count > len(answers):
                accepted.append(drawn.merged())
                agreeing &= {index for index, box in drawn.boxes.items() if box.concept == concept}
            else:
                agreeing -= drawn.boxes.keys()
                if 2 * len(drawn.boxes) >= len(answers):
                    disputed.append(drawn.merged())
        return Consensus(accepted, [answers[index].annotator for index in sorted(agreeing)], disputed)

    def agree(self, one: Value, other: Value) -> bool:
        """Whether each box has a matched box with the same concept."""
        assert not isinstance(one, bytes)
        assert not isinstance(other, bytes)
        return len(match(one, other, same_concept=True)) == len(one) == len(other)

    def alpha(self, units: Iterable[Sequence[Value]]) -> float | None:
        """With the distance of `distance`."""
        return distance_alpha(units, distance)


def distance(one: Value, other: Value) -> float:
    """Returns 1 minus the IoU of matched boxes with the same concept, summed, by the number of all objects; 0 for two empty answers."""
    assert not isinstance(one, bytes)
    assert not isinstance(other, bytes)
    pairs = match(one, other, same_concept=True)
    objects = len(one) + len(other) - len(pairs)
    return 1 - sum(pairs.values()) / objects if objects else 0.0

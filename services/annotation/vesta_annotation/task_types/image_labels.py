"""Classification and multi-label: answers agree if they are equal. Shapes beside the labels are compared too."""

import hashlib
from collections.abc import Iterable, Sequence

from vesta_contracts.annotation.v1 import Submission
from vesta_contracts.common.v1 import Annotation

from vesta_annotation.alpha import nominal_alpha
from vesta_annotation.task_types.annotation_task import AnnotationTask, Consensus


def answer_key(annotations: Sequence[Annotation]) -> bytes:
    """Returns a key that is equal for equal answers: a SHA-256 of the set of annotations without their scores."""
    keys = set()
    for annotation in annotations:
        plain = Annotation()
        plain.CopyFrom(annotation)
        plain.ClearField("score")
        keys.add(hashlib.sha256(plain.SerializeToString(deterministic=True)).digest())
    return hashlib.sha256(b"".join(sorted(keys))).digest()


class ImageLabels(AnnotationTask[bytes]):
    """Labels of whole images."""

    def key(self, annotations: Sequence[Annotation]) -> bytes:
        return answer_key(annotations)

    def value(self, annotations: Sequence[Annotation]) -> bytes:
        return answer_key(annotations)

    def consensus(self, answers: Sequence[Submission]) -> Consensus | None:
        """The answer that more than half of the annotators gave."""
        keys = [answer_key(answer.annotations) for answer in answers]
        majority = [answer for answer, key in zip(answers, keys, strict=True) if 2 * keys.count(key) > len(keys)]
        if not majority:
            return None
        return Consensus(majority[0].annotations, [answer.annotator for answer in majority])

    def agree(self, one: bytes, other: bytes) -> bool:
        return one == other

    def alpha(self, units: Iterable[Sequence[bytes]]) -> float | None:
        """For nominal values."""
        return nominal_alpha(units)

"""Classification and multi-label: answers agree if they are equal. Shapes beside the labels are compared too."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

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


class ImageAnswer(NamedTuple):
    """An answer with labels of the whole image.

    Attributes:
        key: equal for equal answers.
        labels: the concepts of the image labels.
    """

    key: bytes
    labels: frozenset[str]


class ImageLabels(AnnotationTask[ImageAnswer]):
    """Labels of whole images."""

    def key(self, annotations: Sequence[Annotation]) -> bytes:
        return answer_key(annotations)

    def value(self, annotations: Sequence[Annotation]) -> ImageAnswer:
        labels = frozenset(one.concept for one in annotations if one.HasField("image_label"))
        return ImageAnswer(answer_key(annotations), labels)

    def consensus(self, answers: Sequence[Submission]) -> Consensus | None:
        """The answer that more than half of the annotators gave."""
        keys = [answer_key(answer.annotations) for answer in answers]
        majority = [answer for answer, key in zip(answers, keys, strict=True) if 2 * keys.count(key) > len(keys)]
        if not majority:
            return None
        return Consensus(majority[0].annotations, [answer.annotator for answer in majority])

    def agree(self, one: ImageAnswer, other: ImageAnswer) -> bool:
        return one.key == other.key

    def alpha(self, units: Iterable[Sequence[ImageAnswer]]) -> float | None:
        """For nominal values."""
        return nominal_alpha([value.key for value in unit] for unit in units)

    def parts(self, value: ImageAnswer) -> Mapping[str, ImageAnswer]:
        """One part for each label, so that agreement on a concept is agreement on whether the image has it."""
        return {concept: ImageAnswer(concept.encode(), frozenset({concept})) for concept in value.labels}

    def count_objects(self, value: ImageAnswer) -> int:
        """Returns the number of labels."""
        return len(value.labels)

    def count_matched(self, one: ImageAnswer, other: ImageAnswer) -> int:
        """Returns the number of labels that both answers have."""
        return len(one.labels & other.labels)

"""What annotations say: the labels they state, and whether two answers say the same. Pure."""

from collections.abc import Iterable, Sequence

from vesta_common.media.image_labels import image_labels
from vesta_common.messages import without
from vesta_contracts.common.v1 import Annotation


def labels_of(annotations: Iterable[Annotation]) -> tuple[str, ...]:
    """The concepts of the image labels among the annotations, sorted, each once; empty too where there are shapes alone."""
    return image_labels(annotations) or ()


def shape_concepts_of(annotations: Iterable[Annotation]) -> tuple[str, ...]:
    """The concepts of boxes, masks and other shapes among the annotations, sorted, each once."""
    return tuple(sorted({one.concept for one in annotations if not one.HasField("image_label")}))


def concepts_of(annotations: Iterable[Annotation]) -> tuple[str, ...]:
    """The concepts that the annotations state of the image or of a part of it, sorted, each once."""
    return tuple(sorted({annotation.concept for annotation in annotations}))


def with_shapes_kept(answer: Sequence[Annotation], accepted: Iterable[Annotation]) -> list[Annotation]:
    """An expert's answer with the shapes that were accepted before, where it says what the image as a whole shows and no more.

    An answer that has shapes, or states none of the concepts, stands for itself.
    """
    if not answer or shape_concepts_of(answer):
        return list(answer)
    return [*answer, *(one for one in accepted if not one.HasField("image_label"))]


def say_the_same(one: Iterable[Annotation], other: Iterable[Annotation]) -> bool:
    """Whether two answers state the same concepts in the same places, in whatever order; score and attributes aside."""
    return _stated(one) == _stated(other)


def _stated(annotations: Iterable[Annotation]) -> list[bytes]:
    return sorted(without(one, "score", "attributes").SerializeToString(deterministic=True) for one in annotations)

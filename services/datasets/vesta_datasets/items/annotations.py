"""Labels and concepts of annotations, and the comparison of annotations. Pure functions."""

from collections.abc import Iterable, Sequence

from vesta_common.media.image_labels import image_labels
from vesta_common.messages import without
from vesta_contracts.common.v1 import Annotation


def labels_of(annotations: Iterable[Annotation]) -> tuple[str, ...]:
    """Returns the distinct concepts of the image labels, sorted. Empty if the annotations are all shapes."""
    return image_labels(annotations) or ()


def shape_concepts_of(annotations: Iterable[Annotation]) -> tuple[str, ...]:
    """Returns the distinct concepts of boxes, masks and other shapes, sorted."""
    return tuple(sorted({annotation.concept for annotation in annotations if not annotation.HasField("image_label")}))


def concepts_of(annotations: Iterable[Annotation]) -> tuple[str, ...]:
    """Returns the distinct concepts of image labels and shapes, sorted."""
    return tuple(sorted({annotation.concept for annotation in annotations}))


def with_shapes_kept(answer: Sequence[Annotation], accepted: Iterable[Annotation]) -> list[Annotation]:
    """Adds the previously accepted shapes to an answer that consists of image labels only.

    An answer that has shapes, or that is empty ("none of the concepts"), is returned unchanged.
    """
    if not answer or shape_concepts_of(answer):
        return list(answer)
    return [*answer, *(annotation for annotation in accepted if not annotation.HasField("image_label"))]


def same_annotations(one: Sequence[Annotation], other: Sequence[Annotation]) -> bool:
    """Whether two answers have the same concepts and shapes. Order, scores and attributes are ignored."""
    return one == other or _stated(one) == _stated(other)


def _stated(annotations: Iterable[Annotation]) -> list[bytes]:
    return sorted(
        without(annotation, "score", "attributes").SerializeToString(deterministic=True) for annotation in annotations
    )

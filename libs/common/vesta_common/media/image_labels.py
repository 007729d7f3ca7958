"""Image labels: the concepts that annotations assign to the image as a whole. Classification models learn from them. Pure."""

from collections.abc import Iterable

from vesta_contracts.common.v1 import Annotation


def image_labels(annotations: Iterable[Annotation]) -> tuple[str, ...] | None:
    """Returns the distinct concepts of the image labels, sorted.

    Boxes, masks and other shapes locate single objects. They are not labels of the whole image.

    Returns:
        Empty for an answer without annotations, which means "none of the concepts". None if there are only shapes, because the whole image
        is then unlabelled.
    """
    stated = list(annotations)
    labels = {annotation.concept for annotation in stated if annotation.HasField("image_label")}
    return tuple(sorted(labels)) if labels or not stated else None

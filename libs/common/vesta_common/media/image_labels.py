"""Which concepts annotations state of the image as a whole: what a classification learns from. Pure."""

from collections.abc import Iterable

from vesta_contracts.common.v1 import Annotation


def image_labels(annotations: Iterable[Annotation]) -> tuple[str, ...] | None:
    """The concepts of the image labels, sorted, each once.

    A box, a mask or any other shape says where one object is, not what the image as a whole shows.

    Returns:
        Empty for an answer without annotations, which says "none of the concepts"; None where there are shapes alone, so that
        nothing is said of the image as a whole.
    """
    stated = list(annotations)
    labels = {annotation.concept for annotation in stated if annotation.HasField("image_label")}
    return tuple(sorted(labels)) if labels or not stated else None

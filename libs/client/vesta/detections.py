"""Conversion of predictions to `supervision.Detections` (`pip install supervision`)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vesta_contracts.common.v1 import Annotation, Prediction

from vesta.objects import corners, mask_rows, predicted_objects

if TYPE_CHECKING:
    from numpy.typing import NDArray


def to_supervision(prediction: Prediction, concepts: Sequence[str] | None = None, *, every_object: bool = False) -> Any:
    """Returns the objects of a prediction as `supervision.Detections`.

    `data["class_name"]` contains the concepts, and `class_id` their places in `concepts`.

    Args:
        concepts: such as `ModelVersion.concepts`; by default all concepts of the model in alphabetical order.
        every_object: also those whose score is below the threshold of their concept.

    Raises:
        ImportError: supervision is not installed.
        ValueError: an object is neither a box nor a mask, or its concept is not one of `concepts`.
    """
    import numpy as np
    import supervision

    found = list(prediction.annotations) if every_object else predicted_objects(prediction)
    known = sorted(score.concept for score in prediction.scores) if concepts is None else concepts
    if unknown := {each.concept for each in found}.difference(known):
        raise ValueError(f"{min(unknown)!r} is not one of the concepts {', '.join(known)}")
    places = {concept: place for place, concept in enumerate(known)}
    return supervision.Detections(
        xyxy=np.array([corners(each) for each in found], np.float32).reshape(-1, 4),
        confidence=np.array([each.score for each in found], np.float32),
        class_id=np.array([places[each.concept] for each in found], int),
        mask=np.stack([_pixels(each) for each in found]) if any(each.HasField("mask") for each in found) else None,
        data={"class_name": np.array([each.concept for each in found], str)},
    )


def _pixels(annotation: Annotation) -> "NDArray[Any]":
    """Returns `(height, width)`, true inside the mask."""
    import numpy as np

    mask = annotation.mask
    inside = np.zeros((mask.height_px, mask.width_px), bool)
    for row, start, end in mask_rows(mask):
        inside[row, start:end] = True
    return inside

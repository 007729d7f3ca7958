"""The objects of predictions, for drawing and for other libraries. Their shapes are in pixels of the image."""

from collections.abc import Iterable
from typing import Any

from vesta_contracts.common.v1 import Annotation, Mask, Prediction


def predicted_objects(prediction: Prediction) -> list[Annotation]:
    """Returns the objects whose score reaches the threshold of their concept, in descending order of score.

    `prediction.annotations` has those with lower scores too.
    """
    thresholds = {score.concept: score.threshold for score in prediction.scores}
    return [found for found in prediction.annotations if found.score >= thresholds.get(found.concept, 0.0)]


def corners(annotation: Annotation) -> tuple[float, float, float, float]:
    """Returns x_min, y_min, x_max and y_max of an object, in pixels.

    Raises:
        ValueError: its shape is neither a box nor a mask.
    """
    shape: Any = getattr(annotation, annotation.WhichOneof("shape") or "box")
    if annotation.HasField("box"):
        return shape.x_min_px, shape.y_min_px, shape.x_max_px, shape.y_max_px
    if annotation.HasField("mask"):
        return _around(shape)
    raise ValueError(
        f"a {annotation.concept} has the shape {annotation.WhichOneof('shape')}; boxes and masks are supported"
    )


def area_px(annotation: Annotation) -> float:
    """Returns the area of an object in pixels: the number of pixels of a mask, or the area of a box. Raises as `corners`."""
    if annotation.HasField("mask"):
        return float(sum(annotation.mask.runs_px[1::2]))
    x_min, y_min, x_max, y_max = corners(annotation)
    return (x_max - x_min) * (y_max - y_min)


def mask_rows(mask: Mask) -> Iterable[tuple[int, int, int]]:
    """Yields the pixels inside a mask, as row, first column and the column after the last."""
    position = 0
    for index, length in enumerate(mask.runs_px):
        start, position = position, position + length
        while index % 2 and start < position:
            row, column = divmod(start, mask.width_px)
            end = min(position, (row + 1) * mask.width_px)
            yield row, column, column + end - start
            start = end


def _around(mask: Mask) -> tuple[float, float, float, float]:
    """Returns the box around a mask; without area if it is empty."""
    rows, firsts, ends = zip(*mask_rows(mask), strict=True) if any(mask.runs_px[1::2]) else ((0,), (0,), (0,))
    height = 1 if any(mask.runs_px[1::2]) else 0
    return float(min(firsts)), float(min(rows)), float(max(ends)), float(max(rows) + height)

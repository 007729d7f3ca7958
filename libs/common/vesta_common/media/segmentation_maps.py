"""Maps of concepts by pixel: from the input of a model to the image, which concepts are kept, how certain they are, and run lengths. Pure.

Training measures error rates and serving makes predictions with these functions, so that both mean the same map and margin.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.common.v1 import SegmentationMap

from vesta_common.media.model_input import Placement
from vesta_common.media.predictions import Floats, share_to_certainty

IOU_MIN = 0.5
"""A map is right if it has the concepts of the true one, the pixels of each with at least this intersection over union."""

Map = NDArray[np.uint8]
"""`(height, width)`: the number of the concept of each pixel, 1 for the first; 0 for none of them."""
CONCEPTS_MAX = 255
FULL = 255
"""The share of a pixel that is wholly of a concept."""
SMOOTHING_PX = 0.7
"""Standard deviation of the smoothing of borders, in pixels of the input: nearly the largest with which a line of one pixel stays."""


def map_on_image(found: Map, placement: Placement) -> Map:
    """Returns a map in pixels of the image: each pixel has the concept of most of the input around its centre.

    On images larger than the input, the pixels of each concept are smoothed and interpolated, so that borders are no stairs; a line of
    one pixel stays. Pixels outside of the predicted area, or of what the input shows, have no concept. The memory is that of a few
    images of a byte per pixel, whatever the number of concepts.

    Args:
        found: in pixels of the input.
    """
    from PIL import Image, ImageFilter  # here, because the conductor needs only IOU_MIN

    height, width = placement.image_hw
    left, top, shown_width, shown_height = placement.target
    scale_x, scale_y = placement.scale_xy
    columns, across = _places(width, placement.shown[::2], placement.area[::2], shown_width, scale_x)
    rows, down = _places(height, placement.shown[1::2], placement.area[1::2], shown_height, scale_y)
    on_image = np.zeros((height, width), np.uint8)
    part = on_image[rows, columns]
    if not part.size:
        return on_image
    shown = found[top : top + shown_height, left : left + shown_width]
    box = (across[0], down[0], across[1], down[1])
    largest = np.zeros(part.shape, np.uint8)
    for number in np.unique(shown):
        only = Image.fromarray(np.where(shown == number, FULL, 0).astype(np.uint8))
        if min(scale_x, scale_y) < 1:
            only = only.filter(ImageFilter.GaussianBlur(SMOOTHING_PX))
        shares = np.asarray(only.resize(part.shape[::-1], Image.Resampling.BILINEAR, box))
        np.copyto(part, number, where=shares > largest)
        np.maximum(largest, shares, out=largest)
    return on_image


def predicted_map(on_image: Map, presence: Floats, thresholds: Floats) -> tuple[Map, Floats, NDArray[np.bool_]]:
    """Returns the predicted map, the scores of the concepts, and whether each is predicted.

    A concept without pixels has the score 0. A concept whose score is below its threshold is not predicted: its pixels have no concept.

    Args:
        presence: `(C,)`, the probability that the image contains each concept.
        thresholds: `(C,)`.
    """
    occurs = np.bincount(on_image.ravel(), minlength=len(presence) + 1)[1 : len(presence) + 1] > 0
    scores = np.where(occurs, presence, np.float32(0)).astype(np.float32)
    predicted = occurs & (scores >= thresholds)
    kept = np.arange(len(presence) + 1, dtype=np.uint8)
    kept[1:][~predicted] = 0
    return kept[on_image], scores, predicted


def map_certainties(scores: Floats, overlaps: Floats, thresholds: Floats) -> tuple[Floats, Floats]:
    """Returns how certain the presence of each concept is, and the pixels of each predicted concept, `(C,)` each, in [0, 1].

    The pixels of a concept are uncertain if their expected intersection over union with the true ones is not above `IOU_MIN`.

    Args:
        scores: see `predicted_map`.
        overlaps: `(C,)`, the expected intersection over union of the pixels of each concept.
    """
    presence = share_to_certainty(scores, thresholds)
    pixels = np.clip((overlaps - IOU_MIN) / (1 - IOU_MIN), 0, 1).astype(np.float32)
    return presence, np.where(scores >= thresholds, pixels, np.float32(1))


def margin_of_map(scores: Floats, overlaps: Floats, thresholds: Floats) -> float:
    """Returns the margin of a map: the smallest of its certainties, see `map_certainties`; 1 without concepts."""
    presence, pixels = map_certainties(scores, overlaps, thresholds)
    return float(np.minimum(presence, pixels).min(initial=1))


def run_lengths(found: Map, concepts: Sequence[str]) -> SegmentationMap:
    """Returns a map in pixels of the image as a message, with the concepts that occur.

    Args:
        concepts: of the model; number 1 is the first.
    """
    flat = found.ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    occurring, renumbered = np.unique(np.concatenate([[0], flat[starts]]), return_inverse=True)
    return SegmentationMap(
        height_px=found.shape[0],
        width_px=found.shape[1],
        concepts=[concepts[number - 1] for number in occurring[1:].tolist()],
        runs_px=np.diff(starts, append=len(flat)).tolist(),
        concept_numbers=renumbered[1:].tolist(),
    )


def _places(
    length: int, shown: Sequence[float], area: Sequence[float], count: int, scale: float
) -> tuple[slice, tuple[float, float]]:
    """Returns along one axis the pixels of the image whose centres are shown and to predict, and the part of the input on which they lie.

    Args:
        shown, area: start and end in pixels of the image.
        count: the pixels of the input that show `shown`; the part is in these pixels.
    """
    first, end = (
        int(np.clip(np.ceil(value - 0.5), 0, length)) for value in (max(shown[0], area[0]), min(shown[1], area[1]))
    )
    low, high = ((place - shown[0]) * scale for place in (first, end))
    return slice(first, end), (max(low, 0.0), min(high, float(count)))

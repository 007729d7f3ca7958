"""Masks that models predict in the frames of boxes: their pixels on the image, and the overlap of many masks. Pure.

Training measures masks and serving returns them through this module, so that both see the same pixels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vesta_common.media.mask_runs import Edges, area, iou, mask_edges, overlap
from vesta_common.media.model_input import Box

PROBABILITY_MIN = 0.5
"""Pixels with at least this probability are inside."""


def paste(probabilities: NDArray[np.float32], box_xyxy_px: NDArray[np.float64], area: Box, width_px: int) -> Edges:
    """Returns the edges of a mask on an image: bilinear interpolation of its probabilities at the centres of pixels.

    Args:
        probabilities: `(S, S)`, of equal parts of the box.
        box_xyxy_px: `(4,)` in pixels of the image; it can exceed the image.
        area: the part of the image to which the mask is cut.
        width_px: of the image.
    """
    x_min, y_min, x_max, y_max = box_xyxy_px.tolist()
    if not (x_max > x_min and y_max > y_min):
        return np.zeros(0, np.int64)
    columns = _centres(max(x_min, area[0]), min(x_max, area[2]))
    rows = _centres(max(y_min, area[1]), min(y_max, area[3]))
    across = _weights((columns + 0.5 - x_min) / (x_max - x_min), probabilities.shape[1])
    down = _weights((rows + 0.5 - y_min) / (y_max - y_min), probabilities.shape[0])
    inside = down @ probabilities @ across.T >= PROBABILITY_MIN
    return mask_edges(inside, int(rows[0]) if len(rows) else 0, int(columns[0]) if len(columns) else 0, width_px)


def mask_ious(
    masks: Sequence[Edges], others: Sequence[Edges], may_overlap: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Returns `(N, M)` intersections over unions of masks of one image; 0 where either has no pixel.

    Args:
        may_overlap: `(N, M)`, such as whether boxes around the masks overlap. The other pairs do not overlap, and are not compared.
    """
    shares = np.zeros((len(masks), len(others)))
    pairs = np.ndindex(shares.shape) if may_overlap is None else zip(*np.nonzero(may_overlap), strict=True)
    for row, column in pairs:
        own, its = masks[row], others[column]
        if len(own) and len(its) and own[0] < its[-1] and its[0] < own[-1]:  # else one ends before the other begins
            shares[row, column] = iou(own, its)
    return shares


def mask_shares(masks: Sequence[Edges], others: Sequence[Edges]) -> NDArray[np.float64]:
    """Returns `(N, M)` shares of the pixels of masks that lie in others; 0 of a mask without pixels."""
    shares = [[overlap(mask, other) / max(1, area(mask)) for other in others] for mask in masks]
    return np.array(shares, np.float64).reshape(len(masks), len(others))


def _centres(low: float, high: float) -> NDArray[np.int64]:
    """Returns the pixels whose centres are from `low` to before `high`."""
    return np.arange(np.ceil(low - 0.5), np.ceil(high - 0.5), dtype=np.int64)


def _weights(shares: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """Returns `(P, size)`, the weights of the values at the centres of `size` equal parts, at P places in [0, 1] of the whole."""
    places = np.clip(shares * size - 0.5, 0, size - 1)
    before = np.minimum(places.astype(np.int64), size - 1)
    after = np.minimum(before + 1, size - 1)
    weights = np.zeros((len(places), size), np.float32)
    every = np.arange(len(places))
    weights[every, before] = 1 - (places - before)
    weights[every, after] += places - before
    return weights

"""Masks as pixels, and as run lengths."""

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.common.v1 import Mask


def mask_of(pixels: NDArray[np.bool_]) -> Mask:
    """Encodes `(H, W)` pixels as run lengths, starting with pixels outside of the mask."""
    flat = pixels.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(edges, prepend=0, append=flat.size).tolist()
    if flat.size and flat[0]:
        runs = [0, *runs]
    return Mask(height_px=pixels.shape[0], width_px=pixels.shape[1], runs_px=runs)


def pixels_of(mask: Mask) -> NDArray[np.bool_]:
    """Decodes run lengths to `(H, W)` pixels; the inverse of `mask_of`."""
    inside = np.arange(len(mask.runs_px)) % 2 == 1
    return np.repeat(inside, mask.runs_px).reshape(mask.height_px, mask.width_px)

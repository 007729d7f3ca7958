"""The perceptual hash of images (pHash: Zauner, 2010)."""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vesta_common.media.encoding import resized

_HASH_SIDE, _HASH_PIXELS_SIDE = 8, 32
_HASH_CONTRAST_MIN = 1.0  # root mean square, in gray levels of 256; anything flatter is noise from scaling and rounding


@cache
def _cosines() -> NDArray[np.float64]:
    """Returns the eight lowest-frequency rows of the 32-sample DCT-II, `(8, 32)`, unscaled."""
    frequency, sample = np.arange(_HASH_SIDE)[:, None], np.arange(_HASH_PIXELS_SIDE)[None, :]
    cosines: NDArray[np.float64] = np.cos(np.pi * frequency * (2 * sample + 1) / (2 * _HASH_PIXELS_SIDE))
    return cosines


def perceptual_hash(thumbnail: Image.Image) -> int:
    """Computes the perceptual hash: one bit for each of the 8 × 8 lowest frequencies of the gray 32 × 32 image, set if above the median.

    Returns 0, which means no hash, for an image without structure. Otherwise all flat images would be near-duplicates of each other.
    """
    gray = resized(thumbnail.convert("L"), (_HASH_PIXELS_SIDE, _HASH_PIXELS_SIDE))
    frequencies = _cosines() @ np.asarray(gray, np.float64) @ _cosines().T
    structure = np.square(frequencies).sum() - frequencies[0, 0] ** 2
    if structure < (_HASH_CONTRAST_MIN * _HASH_PIXELS_SIDE**2 / 2) ** 2:  # for a single wave along both axes
        return 0
    middle = np.sort(frequencies, axis=None)[_HASH_SIDE**2 // 2 - 1 : _HASH_SIDE**2 // 2 + 1].mean()
    bits = frequencies > middle
    return int.from_bytes(np.packbits(bits).tobytes(), "big")

"""Images for the tests."""

import io

import numpy as np
from PIL import Image


def a_jpeg(seed: int) -> bytes:
    """Returns a smooth image, which depends on the seed: mostly red for even seeds, and mostly blue for odd ones."""
    coarse = np.random.default_rng(seed).integers(0, 128, (5, 7, 3), dtype=np.uint8)
    coarse[..., 2 * (seed % 2)] += 120
    target = io.BytesIO()
    Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC).save(target, "JPEG")
    return target.getvalue()

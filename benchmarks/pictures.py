"""Photograph-like JPEG files for benchmarks, identical on every run: crops of noise with the spectrum of natural images."""

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SEED = 5
FIELD_SIDE_PX = 2048
GRAIN = 3.0
QUALITY = 90


def jpegs(count: int, width_px: int, height_px: int, quality: int = QUALITY) -> Iterator[bytes]:
    """Returns `count` different JPEG files of one size, with at least about a quarter of a byte per pixel at the default quality."""
    draw = np.random.default_rng(SEED)
    canvas = _canvas(draw).resize((width_px * 5 // 4, height_px * 5 // 4), Image.Resampling.BICUBIC)
    pixels = np.asarray(canvas)
    grain = draw.normal(0, GRAIN, (pixels.shape[0], pixels.shape[1], 1)).astype(np.float32)
    pixels = np.clip(pixels + grain, 0, 255).astype(np.uint8)
    for _ in range(count):
        top, left = draw.integers(pixels.shape[0] - height_px), draw.integers(pixels.shape[1] - width_px)
        crop = pixels[top : top + height_px, left : left + width_px]
        yield _encode(
            np.roll(crop[:: draw.choice((1, -1)), :: draw.choice((1, -1))], draw.integers(3), axis=2), quality
        )


def _canvas(draw: np.random.Generator) -> Image.Image:
    """Three channels of 1/f noise, as in natural images (Field, 1987)."""
    frequencies = np.hypot(np.fft.fftfreq(FIELD_SIDE_PX)[:, None], np.fft.rfftfreq(FIELD_SIDE_PX)[None, :])
    frequencies[0, 0] = 1
    shared = draw.normal(size=(FIELD_SIDE_PX, FIELD_SIDE_PX))
    channels = []
    for _ in range(3):
        noise = shared + 0.3 * draw.normal(size=shared.shape)
        found = np.fft.irfft2(np.fft.rfft2(noise) / frequencies**1.2, s=shared.shape)
        channels.append(np.clip(128 + 55 * found / found.std(), 0, 255))
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def _encode(pixels: NDArray[np.uint8], quality: int) -> bytes:
    target = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(target, "JPEG", quality=quality)
    return target.getvalue()

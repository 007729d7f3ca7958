"""Colours of images: conversion to sRGB, and compositing onto white."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from vesta_common.media.image_formats import ImageFile

TRANSFORMS_MAX = 16
GRAY_16_MODES = frozenset({"I;16", "I;16L", "I;16B"})
_SRGB_NAMES = ("srgb", "c2")  # "c2" is the name of a compact sRGB profile that large web sites embed
_PROFILED_MODES = frozenset({"RGB", "RGBA", "P", "CMYK"})


def profile_of(file: ImageFile, image: Image.Image) -> bytes:
    """Returns the ICC profile of an image; empty if it has none."""
    return file.icc or image.info.get("icc_profile") or b""


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Converts an image to sRGB. Returns the same object if it is sRGB already. Ignores corrupt and mismatching profiles."""
    transform = transform_of(image, profile)
    converted = _transformed(image, transform) if transform else image
    return converted.convert("RGB") if converted.mode in {"CMYK", "YCbCr", "RGBX"} else converted


def _transformed(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = transform.apply(image if image.mode == "CMYK" else image.convert("RGB"))
    if image.has_transparency_data:
        converted.putalpha(image.convert("RGBA").getchannel("A"))
    converted.info = {}
    return converted


def transform_of(image: Image.Image, profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Returns the transform of an image to sRGB; None if none is needed or possible."""
    if not profile or image.mode not in _PROFILED_MODES:
        return None
    return _transform(profile, "CMYK" if image.mode == "CMYK" else "RGB")


@lru_cache(TRANSFORMS_MAX)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        described = (source.profile.profile_description or "").lower()
        if source.profile.xcolor_space.strip() != mode or described.startswith(_SRGB_NAMES):
            return None
        return ImageCms.buildTransform(source, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def on_white(image: Image.Image) -> Image.Image:
    """Composites an image onto white and converts it to `L` or `RGB`. Of 16-bit values the upper eight bits are kept."""
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(colours, mask=colours.getchannel("A"))
        return white
    if image.mode in GRAY_16_MODES:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in {"L", "RGB"}:
        return image
    return image.convert("L" if image.mode == "1" else "RGB")

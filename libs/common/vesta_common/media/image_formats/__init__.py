"""Parses the structure of image files without decoding pixels: format, size, number of frames, metadata.

The input is untrusted. Parsing takes time linear in its size, and every length in the file is checked before use.
"""

import struct

from vesta_common.media.image_formats.jpeg import read_jpeg
from vesta_common.media.image_formats.parts import (
    IMAGE_BYTES_MAX,
    IMAGE_PIXELS_MAX,
    IMAGE_SIDE_PX_MAX,
    ImageFile,
    ImageHeader,
    corrupt,
    image_error,
    truncated,
)
from vesta_common.media.image_formats.png import PNG_SIGNATURE, read_png
from vesta_common.media.image_formats.reencoded import bmp_header, gif_header, tiff_header, webp_header

__all__ = [
    "IMAGE_BYTES_MAX",
    "IMAGE_PIXELS_MAX",
    "PNG_SIGNATURE",
    "ImageFile",
    "ImageHeader",
    "corrupt",
    "image_error",
    "split_file",
    "truncated",
]

ACCEPTED = "JPEG, PNG, WebP, BMP, TIFF or a still GIF"


def split_file(data: bytes | memoryview) -> ImageFile:
    """Checks the headers of an untrusted file against the limits and splits the file into its parts. Copies its pixels once, or not at all.

    Raises:
        InvalidArgument: with reason IMAGE_EMPTY, IMAGE_TOO_LARGE, IMAGE_FORMAT_UNSUPPORTED, IMAGE_TRUNCATED, IMAGE_CORRUPT,
            IMAGE_ANIMATED, IMAGE_METADATA_TOO_LARGE or IMAGE_TOO_EXPENSIVE.
    """
    if not data:
        raise image_error("IMAGE_EMPTY", "the file is empty; upload an image")
    if len(data) > IMAGE_BYTES_MAX:
        raise image_error(
            "IMAGE_TOO_LARGE",
            f"the file has {len(data)} bytes, the maximum is {IMAGE_BYTES_MAX}; scale the image down or compress it",
            size_bytes=len(data),
            size_bytes_max=IMAGE_BYTES_MAX,
        )
    file = _split(data)
    _check_limits(file.header)
    return file


def _split(data: bytes | memoryview) -> ImageFile:
    try:
        start = bytes(data[: len(PNG_SIGNATURE)])
        if start.startswith(b"\xff\xd8\xff"):
            return read_jpeg(memoryview(data))
        if start == PNG_SIGNATURE:
            return read_png(memoryview(data))
        data = bytes(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return ImageFile(webp_header(data), data)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return ImageFile(gif_header(data), data)
        if data.startswith(b"BM"):
            return ImageFile(bmp_header(data), data)
        if data.startswith((b"II*\x00", b"MM\x00*")):
            return ImageFile(tiff_header(data), data)
    except (struct.error, IndexError):
        raise truncated("its header") from None
    raise image_error("IMAGE_FORMAT_UNSUPPORTED", f"this is {_guess(data)}; supported formats: {ACCEPTED}")


def _check_limits(header: ImageHeader) -> None:
    width, height = header.width_px, header.height_px
    if width < 1 or height < 1:
        raise corrupt(f"its size is {width} × {height} pixels")
    if width * height > IMAGE_PIXELS_MAX or max(width, height) > IMAGE_SIDE_PX_MAX:
        raise image_error(
            "IMAGE_TOO_LARGE",
            f"the image has {width} × {height} pixels, the maximum is "
            f"{IMAGE_PIXELS_MAX // 1000000} megapixels and {IMAGE_SIDE_PX_MAX} pixels per edge; "
            "scale it down or cut it into tiles",
            width_px=width,
            height_px=height,
        )
    if header.frames > 1:
        raise image_error(
            "IMAGE_ANIMATED",
            "the file contains more than one image; upload each image separately",
            frames=header.frames,
        )


_KNOWN_OTHERS = {
    b"%pdf": "a PDF document",
    b"pk\x03\x04": "an archive",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"8bps": "a Photoshop file",
}


def _guess(data: bytes) -> str:
    """Guesses the type of an unsupported file, for the error message."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        return {
            b"heic": "a HEIC image",
            b"heix": "a HEIC image",
            b"mif1": "a HEIF image",
            b"avif": "an AVIF image",
        }.get(brand, "a video")
    if b"<svg" in start:
        return "an SVG drawing, not a photograph"
    return next((name for magic, name in _KNOWN_OTHERS.items() if start.startswith(magic)), "not a known image format")

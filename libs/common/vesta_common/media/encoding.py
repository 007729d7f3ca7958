"""Encoding of images for storage, and scaling."""

import io

from PIL import Image

from vesta_common.media.colours import on_white
from vesta_common.media.image_formats import IMAGE_BYTES_MAX, image_error, split_file

REENCODED_QUALITIES = (95, 85, 75)  # tried in order until the file is within IMAGE_BYTES_MAX
STORED_FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png"}
LETTERBOX_GREY = (114, 114, 114)
STORED_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


def encode(image: Image.Image, *, as_png: bool) -> tuple[bytes, str]:
    """Encodes an image without metadata. Returns the bytes and the format."""
    if not as_png:
        return _encode_small_jpeg(on_white(image)), "JPEG"
    target = io.BytesIO()
    storable = image if image.mode in STORED_MODES else image.convert("RGBA")
    _in_memory(storable).save(target, "PNG", exif=b"", icc_profile=None)
    check_stored_size(target.getvalue(), "PNG")
    return split_file(target.getvalue()).essential, "PNG"


def _encode_small_jpeg(image: Image.Image) -> bytes:
    """Encodes with the highest quality that is within IMAGE_BYTES_MAX. A small original may need many bytes as a JPEG."""
    encoded = b""
    for quality in REENCODED_QUALITIES:
        encoded = encode_jpeg(image, quality)
        if len(encoded) <= IMAGE_BYTES_MAX:
            break
    return encoded


def check_stored_size(encoded: bytes, image_format: str) -> None:
    """Raises InvalidArgument (IMAGE_TOO_LARGE) if an encoded image exceeds the limit."""
    if len(encoded) > IMAGE_BYTES_MAX:
        raise image_error(
            "IMAGE_TOO_LARGE",
            f"converted to {image_format} for storage, the image has {len(encoded)} bytes, the "
            f"maximum is {IMAGE_BYTES_MAX}; scale it down or cut it into tiles",
            size_bytes=len(encoded),
            size_bytes_max=IMAGE_BYTES_MAX,
        )


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """Encodes an image as JPEG without metadata. The quality is from 1 to 95."""
    target = io.BytesIO()
    _in_memory(image).save(target, "JPEG", quality=quality, exif=b"", icc_profile=None, comment=b"")
    return target.getvalue()


def _in_memory(image: Image.Image) -> Image.Image:
    """Detaches an image from its file. When saving, Pillow asks for the path of that file, which the sandbox denies."""
    return image if type(image) is Image.Image else image.copy()


def resized(
    image: Image.Image, size: tuple[int, int], part: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """Returns the image, or a part of it, scaled to `(width, height)` in pixels.

    Args:
        part: x_min, y_min, x_max, y_max in pixels of the image.
    """
    return image.resize(size, Image.Resampling.BILINEAR, part, reducing_gap=2.0)


def padded(image: Image.Image, size: tuple[int, int], corner: tuple[int, int]) -> Image.Image:
    """Returns a grey `(width, height)` area with an RGB image at a corner `(left, top)`; the image itself if it fills the area."""
    if image.size == size:
        return image
    area = Image.new("RGB", size, LETTERBOX_GREY)
    area.paste(image, corner)
    return area

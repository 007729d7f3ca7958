"""Opens and decodes image files with Pillow's readers, and converts their errors.

All functions are pure and thread-safe. Decode untrusted bytes in a child process: `vesta_common.sandbox`.
"""

import io
import struct

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from vesta_common.errors import InvalidArgument
from vesta_common.media.colours import GRAY_16_MODES
from vesta_common.media.encoding import STORED_MODES
from vesta_common.media.image_formats import ImageFile, corrupt, image_error, truncated

# The reader is chosen explicitly, so that untrusted bytes never reach other readers of Pillow.
READERS: dict[str, type[Image.Image]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
_READ_MODES = STORED_MODES | GRAY_16_MODES | {"PA", "RGBX", "RGBa", "CMYK", "YCbCr"}


def open_image(file: ImageFile) -> Image.Image:
    """Opens the essential bytes of a file. The pixels are not decoded yet."""
    header = file.header
    try:
        image = READERS[header.format](io.BytesIO(file.essential))  # type: ignore[call-arg]
    except OSError:
        if (
            header.format == "WEBP"
        ):  # Pillow raises the same error for a corrupt file and when it cannot allocate memory for two pictures
            bytearray(2 * 4 * header.width_px * header.height_px)
        raise
    expected, actual = (header.width_px, header.height_px), image.size
    if actual != expected and not (header.format == "TIFF" and actual == expected[::-1]):  # Pillow rotates TIFFs itself
        raise corrupt("its headers are inconsistent")
    if image.mode not in _READ_MODES:
        raise image_error(
            "IMAGE_FORMAT_UNSUPPORTED",
            f"the pixel format {image.mode} is not supported; save the image with 8 or 16 bits per channel",
        )
    return image


def load_image(image: Image.Image, size_px_min: tuple[int, int] | None = None) -> Image.Image:
    """Decodes the pixels of an image.

    Args:
        size_px_min: see `reduce_scale`.
    """
    if size_px_min:
        reduce_scale(image, size_px_min)
    image.load()
    return image


def reduce_scale(image: Image.Image, size_px_min: tuple[int, int]) -> None:
    """Lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size that is not smaller than this width and height. Changes `image.size`."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        image.draft("RGB", size_px_min)


def decoding_error(error: Exception) -> InvalidArgument:
    """Converts an error of Pillow to an InvalidArgument. Pillow's readers raise many types of errors."""
    if isinstance(error, InvalidArgument):
        return error
    if isinstance(error, MemoryError):
        return image_error("IMAGE_TOO_EXPENSIVE", "the image exceeds the memory limit for decoding; scale it down")
    if isinstance(error, EOFError | struct.error | IndexError) or "runcat" in str(error):
        return truncated("the picture")
    return corrupt(f"{type(error).__name__}: {str(error)[:200]}")

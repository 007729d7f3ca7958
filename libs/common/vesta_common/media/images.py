"""Normalises images: checks the header, decodes, rotates upright, removes metadata, hashes, and scales for models.

All functions are pure and thread-safe. Decode untrusted bytes in a child process: `vesta_common.sandbox`.
"""

import io
import struct
from dataclasses import dataclass, fields
from datetime import datetime
from pickle import PickleBuffer
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from vesta_common.errors import InvalidArgument
from vesta_common.media.colours import GRAY_16_MODES, on_white, profile_of, to_srgb, transform_of
from vesta_common.media.encoding import (
    STORED_FORMATS,
    STORED_MODES,
    check_stored_size,
    encode,
    encode_jpeg,
    padded,
    resized,
)
from vesta_common.media.exif import exif_of, is_sideways, rotation, sample_exif, taken_time, upright
from vesta_common.media.image_formats import (
    ImageFile,
    ImageHeader,
    corrupt,
    image_error,
    split_file,
    truncated,
)
from vesta_common.media.model_input import SQUARE, Box, InputFormat, Placement, place
from vesta_common.media.perceptual_hash import perceptual_hash

__all__ = [
    "THUMBNAIL_SIDE_PX",
    "ImageHeader",
    "ModelPicture",
    "NormalisedImage",
    "inspect",
    "model_picture",
    "model_pixels",
    "normalise",
]

THUMBNAIL_SIDE_PX = 256
THUMBNAIL_QUALITY = 80

Pixels = NDArray[np.uint8]

# The reader is chosen explicitly, so that untrusted bytes never reach other readers of Pillow.
_READERS: dict[str, type[Image.Image]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
_READ_MODES = STORED_MODES | GRAY_16_MODES | {"PA", "RGBX", "RGBa", "CMYK", "YCbCr"}


@dataclass(frozen=True)
class NormalisedImage:
    """An image in the platform's storage format.

    Attributes:
        data: JPEG or PNG, upright, sRGB, without metadata. The pixels of a JPEG or PNG that meets this already are not re-encoded.
        mime_type: `image/jpeg` or `image/png`.
        perceptual_hash: 64 bits; near-duplicates differ in few bits.
        thumbnail_jpeg: at most 256 pixels on the longer side.
        taken_time: from EXIF, aware, UTC. Without a time zone in EXIF, UTC is assumed. None if EXIF has no time.
    """

    data: bytes
    mime_type: str
    width_px: int
    height_px: int
    perceptual_hash: int
    thumbnail_jpeg: bytes
    taken_time: datetime | None

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """Pickles the file as a buffer, which a pickle can leave out (PEP 574)."""
        if int(protocol) < 5:
            return super().__reduce_ex__(protocol)  # type: ignore[return-value]
        _, *others = (getattr(self, field.name) for field in fields(self))
        return NormalisedImage, (PickleBuffer(self.data), *others)


@dataclass(frozen=True)
class ModelPicture:
    """A model input.

    Attributes:
        pixels: `(height, width, 3)` in the declared order of colours.
        placement: where the input lies on the image.
    """

    pixels: Pixels
    placement: Placement


def warm_up() -> None:
    """Decodes an image of every format, so that Pillow and Python load everything they otherwise load on first use.

    For child processes that cannot read files after start, and to keep their first call as fast as later ones.
    """
    exif = sample_exif()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for image_format in _READERS:
        target = io.BytesIO()
        Image.new("RGB", (8, 8), "red").save(target, image_format, exif=exif, icc_profile=profile)
        normalise(target.getvalue())
        model_pixels(target.getvalue())


def inspect(data: bytes | memoryview) -> ImageHeader:
    """Returns format and size of an untrusted file without decoding it. The format is detected from the content.

    Raises:
        InvalidArgument: the file is not a single image within the limits; see `vesta_common.media.image_formats.split_file`.
    """
    return split_file(data).header


def normalise(data: bytes | memoryview) -> NormalisedImage:
    """Decodes an untrusted file completely and converts it to the platform's storage format.

    The result does not depend on metadata: the same image has the same bytes and the same SHA-256. The result is itself within the limits,
    so it can be read again.

    Raises:
        InvalidArgument: as `inspect`; or the pixels cannot be decoded (IMAGE_TRUNCATED, IMAGE_CORRUPT, IMAGE_TOO_EXPENSIVE); or the image
            exceeds the file size limit in the storage format (IMAGE_TOO_LARGE).
    """
    file = split_file(data)
    try:
        image = _open(file)
        exif, profile = exif_of(file, image), profile_of(file, image)
        if _is_normal(file, image, exif, profile):
            stored, stored_format = file.essential, file.header.format
            # Decoding a JPEG at a smaller scale still reads every bit, so corruption is detected. Only fewer pixels are produced.
            picture = _load(image, _thumbnail_size(image.size))
            width_px, height_px = file.header.width_px, file.header.height_px
        else:
            picture = to_srgb(upright(_load(image), exif, file.header.format), profile)
            stored, stored_format = encode(picture, as_png=file.header.format == "PNG" or picture.has_transparency_data)
            width_px, height_px = picture.size
        check_stored_size(stored, stored_format)
        small = _thumbnail(picture)
        return NormalisedImage(
            data=stored,
            mime_type=STORED_FORMATS[stored_format],
            width_px=width_px,
            height_px=height_px,
            perceptual_hash=perceptual_hash(small),
            thumbnail_jpeg=stored
            if stored_format == "JPEG" and small.size == (width_px, height_px)
            else encode_jpeg(small, THUMBNAIL_QUALITY),
            taken_time=taken_time(exif),
        )
    except Exception as error:
        raise _decoding_error(error) from error


def model_pixels(data: bytes | memoryview, declared: InputFormat = SQUARE) -> Pixels:
    """Returns the model input for an image file, `(height, width, 3)`. Transparency is white.

    Training, serving and Triton all use this function or `model_picture`, for original and for normalised images. A JPEG is decoded at the
    smallest sufficient scale.

    Raises:
        InvalidArgument: as `normalise`.
    """
    return model_picture(data, declared).pixels


def model_picture(data: bytes | memoryview, declared: InputFormat = SQUARE, region: Box | None = None) -> ModelPicture:
    """Returns the model input for an image file or a region of it, and its place on the image.

    Args:
        region: the part of the image to predict, in pixels of the upright image; all of it if None.

    Raises:
        InvalidArgument: as `normalise`; REGION_INVALID, the region is not in the image.
    """
    file = split_file(data)
    try:
        image = _open(file)
        exif, image_format = exif_of(file, image), file.header.format
        sideways = is_sideways(exif, image_format)
        width_px, height_px = _exchanged(image.size) if sideways else image.size
        placement = place(declared, width_px, height_px, region)
        scale_x, scale_y = placement.scale_xy
        size_px_min = round(width_px * scale_x), round(height_px * scale_y)
        loaded = _load(image, _exchanged(size_px_min) if sideways else size_px_min)
        shown = upright(on_white(loaded), exif, image_format)
        across, down = shown.width / width_px, shown.height / height_px
        x_min, y_min, x_max, y_max = placement.shown
        part = (x_min * across, y_min * down, x_max * across, y_max * down)
        left, top, width, height = placement.target
        picture = to_srgb(resized(shown, (width, height), part), profile_of(file, image)).convert("RGB")
        pixels = np.asarray(padded(picture, (declared.width_px, declared.height_px), (left, top)))
        is_rgb = declared.colour_order == "RGB"
        return ModelPicture(pixels if is_rgb else np.ascontiguousarray(pixels[..., ::-1]), placement)
    except Exception as error:
        raise _decoding_error(error) from error


def _exchanged(size: tuple[int, int]) -> tuple[int, int]:
    return size[1], size[0]


def _open(file: ImageFile) -> Image.Image:
    """Opens the essential bytes of a file. The pixels are not decoded yet."""
    header = file.header
    try:
        image = _READERS[header.format](io.BytesIO(file.essential))  # type: ignore[call-arg]
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


def _load(image: Image.Image, size_px_min: tuple[int, int] | None = None) -> Image.Image:
    """Decodes the pixels of an image.

    Args:
        size_px_min: width and height; allows a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size that is not smaller.
    """
    if size_px_min and isinstance(image, JpegImagePlugin.JpegImageFile):
        image.draft("RGB", size_px_min)
    image.load()
    return image


def _is_normal(file: ImageFile, image: Image.Image, exif: Image.Exif, profile: bytes) -> bool:
    """Returns True if the pixels can be stored unchanged."""
    return (
        file.header.format in STORED_FORMATS
        and image.mode in STORED_MODES
        and rotation(exif, file.header.format) is None
        and transform_of(image, profile) is None
    )


def _decoding_error(error: Exception) -> InvalidArgument:
    """Converts an error of Pillow to an InvalidArgument. Pillow's readers raise many types of errors."""
    if isinstance(error, InvalidArgument):
        return error
    if isinstance(error, MemoryError):
        return image_error("IMAGE_TOO_EXPENSIVE", "the image exceeds the memory limit for decoding; scale it down")
    if isinstance(error, EOFError | struct.error | IndexError) or "runcat" in str(error):
        return truncated("the picture")
    return corrupt(f"{type(error).__name__}: {str(error)[:200]}")


def _thumbnail(image: Image.Image) -> Image.Image:
    """Composites an image onto white and scales it to at most 256 pixels on the longer side. Never enlarges."""
    shown = on_white(image)
    size = _thumbnail_size(shown.size)
    return shown if size == shown.size else resized(shown, size)


def _thumbnail_size(size: tuple[int, int]) -> tuple[int, int]:
    """Returns the width and height of the thumbnail of an image."""
    width_px, height_px = size
    scale = min(1.0, THUMBNAIL_SIDE_PX / max(size))
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))

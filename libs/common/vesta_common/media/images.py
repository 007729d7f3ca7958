"""Normalises images: checks the header, decodes, rotates upright, removes metadata and hashes.

All functions are pure and thread-safe. Decode untrusted bytes in a child process: `vesta_common.sandbox`.
"""

import io
from dataclasses import dataclass, fields
from datetime import datetime
from pickle import PickleBuffer
from typing import Any, SupportsIndex

from PIL import Image, ImageCms

from vesta_common.media.colours import on_white, profile_of, to_srgb, transform_of
from vesta_common.media.decoding import READERS, decoding_error, load_image, open_image
from vesta_common.media.encoding import (
    STORED_FORMATS,
    STORED_MODES,
    check_stored_size,
    encode,
    encode_jpeg,
    resized,
)
from vesta_common.media.exif import exif_of, rotation, sample_exif, taken_time, upright
from vesta_common.media.image_formats import ImageFile, ImageHeader, split_file
from vesta_common.media.model_pictures import model_pixels
from vesta_common.media.perceptual_hash import perceptual_hash

__all__ = [
    "THUMBNAIL_SIDE_PX",
    "ImageHeader",
    "NormalisedImage",
    "inspect",
    "normalise",
]

THUMBNAIL_SIDE_PX = 256
THUMBNAIL_QUALITY = 80


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


def warm_up() -> None:
    """Decodes an image of every format, so that Pillow and Python load everything they otherwise load on first use.

    For child processes that cannot read files after start, and to keep their first call as fast as later ones.
    """
    exif = sample_exif()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for image_format in READERS:
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
        image = open_image(file)
        exif, profile = exif_of(file, image), profile_of(file, image)
        if _is_normal(file, image, exif, profile):
            stored, stored_format = file.essential, file.header.format
            # Decoding a JPEG at a smaller scale still reads every bit, so corruption is detected. Only fewer pixels are produced.
            picture = load_image(image, _thumbnail_size(image.size))
            width_px, height_px = file.header.width_px, file.header.height_px
        else:
            picture = to_srgb(upright(load_image(image), exif, file.header.format), profile)
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
        raise decoding_error(error) from error


def _is_normal(file: ImageFile, image: Image.Image, exif: Image.Exif, profile: bytes) -> bool:
    """Returns True if the pixels can be stored unchanged."""
    return (
        file.header.format in STORED_FORMATS
        and image.mode in STORED_MODES
        and rotation(exif, file.header.format) is None
        and transform_of(image, profile) is None
    )


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

"""What the parsers of all image formats share: limits, the parts of a file, and errors."""

from dataclasses import dataclass

from vesta_common.errors import InvalidArgument

IMAGE_BYTES_MAX = 32 * 1024 * 1024
IMAGE_PIXELS_MAX = 64_000_000
IMAGE_SIDE_PX_MAX = 65_500  # the limit of JPEG encoders
METADATA_BYTES_MAX = 8 * 1024 * 1024
ICC_BYTES_MAX = 4 * 1024 * 1024
PARTS_MAX = 200_000  # segments, chunks or blocks; a valid GIF of 32 MiB has up to 130,000


@dataclass(frozen=True)
class ImageHeader:
    """Properties of an image file according to its header.

    Attributes:
        format: `JPEG`, `PNG`, `WEBP`, `BMP`, `TIFF` or `GIF`, detected from the content.
        frames: number of pictures in the file; counting stops at 2 where it would be slow.
    """

    format: str
    width_px: int
    height_px: int
    frames: int


@dataclass(frozen=True)
class ImageFile:
    """The parts of an image file.

    Attributes:
        essential: the file without metadata and trailing bytes, with the same pixels. Unchanged for formats other than JPEG and PNG.
        exif: a TIFF structure, or empty. Set only for JPEG and PNG.
        icc: the colour profile, or empty. Set only for JPEG and PNG.
    """

    header: ImageHeader
    essential: bytes
    exif: bytes = b""
    icc: bytes = b""


def image_error(reason: str, message: str, **metadata: object) -> InvalidArgument:
    """Returns the error for a rejected image."""
    return InvalidArgument(message, reason=reason, metadata={key: str(value) for key, value in metadata.items()})


def truncated(what: str) -> InvalidArgument:
    """Returns the error for a truncated file."""
    return image_error("IMAGE_TRUNCATED", f"the file is truncated in {what}; upload it again")


def corrupt(what: str) -> InvalidArgument:
    """Returns the error for an inconsistent file."""
    return image_error("IMAGE_CORRUPT", f"the image cannot be read: {what}; export it again from the original")


def check_metadata(size_bytes: int) -> None:
    """Raises InvalidArgument if a file has too much metadata."""
    if size_bytes > METADATA_BYTES_MAX:
        raise image_error(
            "IMAGE_METADATA_TOO_LARGE",
            f"the file has more than {METADATA_BYTES_MAX} bytes of metadata; remove the metadata",
            size_bytes=size_bytes,
        )


def check_parts(parts: int) -> None:
    """Raises InvalidArgument if a file consists of too many parts."""
    if parts > PARTS_MAX:
        raise image_error("IMAGE_TOO_EXPENSIVE", f"the file consists of more than {PARTS_MAX} parts; export it again")

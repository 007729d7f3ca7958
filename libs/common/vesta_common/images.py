"""Untrusted images: looked at before they are decoded, then turned, stripped, hashed and made small. Pure functions on bytes.

Whoever decodes bytes from outside runs these in `vesta_common.sandbox`.
"""

import hashlib
import io
import struct
from dataclasses import dataclass
from datetime import UTC, datetime

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from vesta_common.errors import InvalidArgument

FILE_BYTES_MAX = 32 * 1024 * 1024
PIXELS_MAX = 64_000_000
SIDE_PX_MAX = 32_768
MODEL_SIDE_PX = 256
THUMBNAIL_SIDE_PX = 256
THUMBNAIL_QUALITY = 80
JPEG_QUALITY = 95
HASH_SIDE_PX = 64
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

Image.MAX_IMAGE_PIXELS = None  # our own limit is checked before decoding, by `inspect`
ImageFile.LOAD_TRUNCATED_IMAGES = False


@dataclass(frozen=True)
class ImageHeader:
    """What the first bytes say."""

    format: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class NormalisedImage:
    """An image as it is kept: turned by EXIF, sRGB, without metadata.

    Attributes:
        data: the JPEG or PNG to store. A JPEG that needs no turning keeps its pixels to the bit.
        thumbnail_jpeg: 256 pixels on its long side.
        perceptual_hash: 64 bits; near-duplicates differ in few.
        taken_time: by EXIF, taken as UTC where it names no zone; None where it does not say.
    """

    data: bytes
    mime_type: str
    width_px: int
    height_px: int
    sha256: str
    thumbnail_jpeg: bytes
    perceptual_hash: int
    taken_time: datetime | None


def inspect(data: bytes) -> ImageHeader:
    """Decides by the first bytes whether an image may be decoded at all.

    Raises:
        InvalidArgument: IMAGE_EMPTY, IMAGE_TOO_LARGE, IMAGE_FORMAT_UNSUPPORTED, IMAGE_ANIMATED or IMAGE_CORRUPT, with what would work.
    """
    if not data:
        raise InvalidArgument("the file is empty", reason="IMAGE_EMPTY")
    if len(data) > FILE_BYTES_MAX:
        raise InvalidArgument(
            f"the file has more than {FILE_BYTES_MAX} bytes; send a smaller one", reason="IMAGE_TOO_LARGE"
        )
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise InvalidArgument(
            "the file is no JPEG, PNG, WebP, BMP, TIFF or GIF image by its content", reason="IMAGE_FORMAT_UNSUPPORTED"
        ) from error
    except Exception as error:
        raise InvalidArgument(f"the file's header is broken: {error}", reason="IMAGE_CORRUPT") from error
    with image:
        width, height = image.size
        if width * height > PIXELS_MAX or max(width, height) > SIDE_PX_MAX:
            raise InvalidArgument(
                f"the image has {width} x {height} pixels; at most {PIXELS_MAX // 1_000_000} megapixels and {SIDE_PX_MAX} a side are taken",
                reason="IMAGE_TOO_LARGE",
                metadata={"width_px": str(width), "height_px": str(height)},
            )
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            raise InvalidArgument(
                "the image is animated or has several pages; send single frames", reason="IMAGE_ANIMATED"
            )
        return ImageHeader(str(image.format), width, height)


def normalise(data: bytes) -> NormalisedImage:
    """Decodes an image wholly and makes what is kept of it.

    Raises:
        InvalidArgument: as `inspect`, and IMAGE_TRUNCATED or IMAGE_CORRUPT where the pixels cannot be decoded.
    """
    header = inspect(data)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            taken = _taken_time(image)
            plain = header.format == "JPEG" and orientation in {0, 1} and image.mode in {"RGB", "L"} and _is_srgb(image)
            pixels = _to_srgb(ImageOps.exif_transpose(image))
    except InvalidArgument:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        truncated = "truncated" in str(error).lower() or isinstance(error, EOFError)
        reason = "IMAGE_TRUNCATED" if truncated else "IMAGE_CORRUPT"
        raise InvalidArgument(f"the image cannot be decoded: {error}", reason=reason) from error
    if plain:
        kept, mime_type = strip_jpeg(data), "image/jpeg"
    elif header.format in {"PNG", "BMP", "GIF"}:
        kept, mime_type = _encoded(pixels, "PNG"), "image/png"
    else:
        kept, mime_type = _encoded(pixels, "JPEG"), "image/jpeg"
    return NormalisedImage(
        data=kept,
        mime_type=mime_type,
        width_px=pixels.width,
        height_px=pixels.height,
        sha256=hashlib.sha256(kept).hexdigest(),
        thumbnail_jpeg=_thumbnail(pixels),
        perceptual_hash=_perceptual_hash(pixels),
        taken_time=taken,
    )


def model_pixels(data: bytes) -> NDArray[np.uint8]:
    """What every model sees of a stored or sent image: `(256, 256, 3)` RGB, the whole image squeezed into the square.

    A JPEG is decoded at a fraction of its size where that is enough. Images that bear EXIF are turned by it.

    Raises:
        InvalidArgument: as `normalise`.
    """
    inspect(data)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.draft("RGB", (MODEL_SIDE_PX, MODEL_SIDE_PX))
            turned = ImageOps.exif_transpose(image) if image.getexif() else image
            if turned.mode != "RGB":
                turned = _flattened(turned)
            small = turned.resize((MODEL_SIDE_PX, MODEL_SIDE_PX), Image.Resampling.BILINEAR, reducing_gap=2.0)
            return np.asarray(small, np.uint8)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise InvalidArgument(f"the image cannot be decoded: {error}", reason="IMAGE_CORRUPT") from error


def strip_jpeg(data: bytes) -> bytes:
    """A JPEG without its metadata segments (APP1 to APP13, APP15, comments); its pixels stay to the bit.

    Raises:
        InvalidArgument: its segments are broken.
    """
    kept, position = [data[:2]], 2
    while True:
        if position + 4 > len(data) or data[position] != 0xFF:
            raise InvalidArgument("the JPEG's segments are broken", reason="IMAGE_CORRUPT")
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big") + 2
        if marker == 0xDA:  # the scan: what follows is picture, up to the end marker
            end = data.rfind(b"\xff\xd9")
            kept.append(data[position : end + 2] if end > position else data[position:])
            return b"".join(kept)
        is_metadata = (0xE1 <= marker <= 0xEF and marker != 0xEE) or marker == 0xFE
        if not is_metadata:
            kept.append(data[position : position + length])
        position += length


def _is_srgb(image: Image.Image) -> bool:
    """True where the profile can be dropped without changing colours."""
    profile = image.info.get("icc_profile")
    if not profile:
        return True
    try:
        return "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError):
        return True


def _to_srgb(image: Image.Image) -> Image.Image:
    """The image as RGB in sRGB; what is transparent becomes white."""
    profile = image.info.get("icc_profile")
    flat = _flattened(image)
    if not profile or _is_srgb(image) or image.mode == "CMYK":
        return flat
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(flat, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # a broken profile says nothing about the pixels
        return flat
    return converted if converted is not None else flat


def _flattened(image: Image.Image) -> Image.Image:
    """The image as RGB, on white, with 16 bits scaled to 8."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        image = Image.fromarray(np.clip(values / top * 255, 0, 255).astype(np.uint8))
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, "white")
        canvas.alpha_composite(layer)
        return canvas.convert("RGB")
    return image.convert("RGB")


def _encoded(image: Image.Image, image_format: str) -> bytes:
    buffer = io.BytesIO()
    options = {"quality": JPEG_QUALITY, "subsampling": 0} if image_format == "JPEG" else {"compress_level": 4}
    clean = Image.new(image.mode, image.size)
    clean.paste(image)
    clean.save(buffer, image_format, **options)
    return buffer.getvalue()


def _thumbnail(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX), Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=THUMBNAIL_QUALITY)
    return buffer.getvalue()


def _perceptual_hash(image: Image.Image) -> int:
    """imagehash's DCT hash, from a small copy."""
    small = image.convert("L").resize((HASH_SIDE_PX, HASH_SIDE_PX), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return int(str(imagehash.phash(small)), 16)


def _taken_time(image: Image.Image) -> datetime | None:
    exif = image.getexif()
    details = exif.get_ifd(ExifTags.IFD.Exif)
    text = details.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
    try:
        return datetime.strptime(str(text).strip("\x00 "), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC) if text else None
    except ValueError:
        return None

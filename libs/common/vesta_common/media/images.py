"""Normalises images: checks the header, decodes, rotates upright, removes metadata, hashes, and scales for models.

All functions are pure and thread-safe. Decode untrusted bytes in a child process: `vesta_common.sandbox`.
"""

import io
import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import cache, lru_cache

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
from vesta_common.media.image_formats import (
    IMAGE_BYTES_MAX,
    MODEL_SIDE_PX,
    ImageFile,
    ImageHeader,
    corrupt,
    image_error,
    split_file,
    truncated,
)

__all__ = [
    "MODEL_SIDE_PX",
    "THUMBNAIL_SIDE_PX",
    "ImageHeader",
    "NormalisedImage",
    "inspect",
    "model_pixels",
    "normalise",
]

THUMBNAIL_SIDE_PX = 256
THUMBNAIL_QUALITY = 80
REENCODED_QUALITIES = (95, 85, 75)  # tried in order until the file is within IMAGE_BYTES_MAX
TRANSFORMS_MAX = 16

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
_KEPT_FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png"}
_KEPT_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_GRAY_16_MODES = frozenset({"I;16", "I;16L", "I;16B"})
_READ_MODES = _KEPT_MODES | _GRAY_16_MODES | {"PA", "RGBX", "RGBa", "CMYK", "YCbCr"}


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


def warm_up() -> None:
    """Decodes an image of every format, so that Pillow and Python load everything they otherwise load on first use.

    For child processes that cannot read files after start, and to keep their first call as fast as later ones.
    """
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    exif.get_ifd(_EXIF_IFD)[_TAKEN] = "2026:01:01 00:00:00"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for image_format in _READERS:
        target = io.BytesIO()
        Image.new("RGB", (8, 8), "red").save(target, image_format, exif=exif, icc_profile=profile)
        normalise(target.getvalue())
        model_pixels(target.getvalue())


def inspect(data: bytes) -> ImageHeader:
    """Returns format and size of an untrusted file without decoding it. The format is detected from the content.

    Raises:
        InvalidArgument: the file is not a single image within the limits; see `vesta_common.media.image_formats.split_file`.
    """
    return split_file(data).header


def normalise(data: bytes) -> NormalisedImage:
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
        exif, profile = _exif(file, image), _profile(file, image)
        if _is_normal(file, image, exif, profile):
            kept, kept_format = file.essential, file.header.format
            # Decoding a JPEG at a smaller scale still reads every bit, so corruption is detected. Only fewer pixels are produced.
            picture = _load(image, side_px_min=THUMBNAIL_SIDE_PX)
            width_px, height_px = file.header.width_px, file.header.height_px
        else:
            picture = _to_srgb(_turned(_load(image), exif, file.header.format), profile)
            kept, kept_format = _encode(picture, as_png=file.header.format == "PNG" or picture.has_transparency_data)
            width_px, height_px = picture.size
        _check_size(kept, kept_format)
        small = _thumbnail(picture)
        return NormalisedImage(
            data=kept,
            mime_type=_KEPT_FORMATS[kept_format],
            width_px=width_px,
            height_px=height_px,
            perceptual_hash=_perceptual_hash(small),
            thumbnail_jpeg=kept
            if kept_format == "JPEG" and small is picture
            else _encode_jpeg(small, THUMBNAIL_QUALITY),
            taken_time=_taken_time(exif),
        )
    except Exception as error:
        raise _refusal(error) from error


def model_pixels(data: bytes) -> Pixels:
    """Returns the model input for an image file: `(256, 256, 3)` RGB. The image is resized to a square; transparency is white.

    Training, serving and Triton all use this function, for original and for normalised images. A JPEG is decoded at the smallest sufficient
    scale.

    Raises:
        InvalidArgument: as `normalise`.
    """
    file = split_file(data)
    try:
        image = _load(_open(file), side_px_min=MODEL_SIDE_PX)
        squashed = _resized(_on_white(image), (MODEL_SIDE_PX, MODEL_SIDE_PX))
        picture = _turned(_to_srgb(squashed, _profile(file, image)), _exif(file, image), file.header.format)
        return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    except Exception as error:
        raise _refusal(error) from error


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
    expected, found = (header.width_px, header.height_px), image.size
    if found != expected and not (header.format == "TIFF" and found == expected[::-1]):  # Pillow rotates TIFFs itself
        raise corrupt("its headers are inconsistent")
    if image.mode not in _READ_MODES:
        raise image_error(
            "IMAGE_FORMAT_UNSUPPORTED",
            f"the pixel format {image.mode} is not supported; save the image with 8 or 16 bits per channel",
        )
    return image


def _load(image: Image.Image, side_px_min: int | None = None) -> Image.Image:
    """Decodes the pixels of an image.

    Args:
        side_px_min: allows a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides keep at least this many pixels.
    """
    if side_px_min and isinstance(image, JpegImagePlugin.JpegImageFile):
        image.draft("RGB", (side_px_min, side_px_min))
    image.load()
    return image


def _is_normal(file: ImageFile, image: Image.Image, exif: Image.Exif, profile: bytes) -> bool:
    """Returns True if the pixels can be stored unchanged."""
    return (
        file.header.format in _KEPT_FORMATS
        and image.mode in _KEPT_MODES
        and _turn(exif, file.header.format) is None
        and _transform_of(image, profile) is None
    )


def _refusal(error: Exception) -> InvalidArgument:
    """Converts an error of Pillow to an InvalidArgument. Pillow's readers raise many types of errors."""
    if isinstance(error, InvalidArgument):
        return error
    if isinstance(error, MemoryError):
        return image_error("IMAGE_TOO_EXPENSIVE", "the image exceeds the memory limit for decoding; scale it down")
    if isinstance(error, EOFError | struct.error | IndexError) or "runcat" in str(error):
        return truncated("the picture")
    return corrupt(f"{type(error).__name__}: {str(error)[:200]}")


# Orientation.

_ORIENTATION, _EXIF_IFD, _TAKEN, _TAKEN_OFFSET = 0x0112, 0x8769, 0x9003, 0x9011
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _exif(file: ImageFile, image: Image.Image) -> Image.Exif:
    """Returns the EXIF data of a file; empty if it is corrupt, because corrupt metadata does not invalidate the image."""
    exif = Image.Exif()
    try:
        if file.header.format not in _KEPT_FORMATS:
            return image.getexif()
        if file.exif:
            exif.load(file.exif)
    except Exception:  # noqa: BLE001 - Pillow raises many types of errors
        return Image.Exif()
    return exif


def _turned(image: Image.Image, exif: Image.Exif, image_format: str) -> Image.Image:
    turn = _turn(exif, image_format)
    return image if turn is None else image.transpose(turn)


def _turn(exif: Image.Exif, image_format: str) -> Image.Transpose | None:
    return _TURNS.get(exif.get(_ORIENTATION, 1)) if image_format != "TIFF" else None


def _taken_time(exif: Image.Exif) -> datetime | None:
    try:
        details = exif.get_ifd(_EXIF_IFD)
        taken = datetime.strptime(str(details[_TAKEN]).strip(" \x00"), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except Exception:  # noqa: BLE001 - Pillow raises many types of errors
        return None
    offset = re.fullmatch(r"([+-])(\d\d):([0-5]\d)", str(details.get(_TAKEN_OFFSET, "")).strip(" \x00"))
    if not offset or int(offset[2]) > 14:
        return taken
    ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
    return taken.replace(tzinfo=timezone(ahead if offset[1] == "+" else -ahead)).astimezone(UTC)


# Colours.

_SRGB_NAMES = ("srgb", "c2")  # "c2" is the name of a compact sRGB profile that large web sites embed
_PROFILED_MODES = frozenset({"RGB", "RGBA", "P", "CMYK"})


def _profile(file: ImageFile, image: Image.Image) -> bytes:
    return file.icc or image.info.get("icc_profile") or b""


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Converts an image to sRGB. Returns the same object if it is sRGB already. Ignores corrupt and mismatching profiles."""
    transform = _transform_of(image, profile)
    converted = _transformed(image, transform) if transform else image
    return converted.convert("RGB") if converted.mode in {"CMYK", "YCbCr", "RGBX"} else converted


def _transformed(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = transform.apply(image if image.mode == "CMYK" else image.convert("RGB"))
    if image.has_transparency_data:
        converted.putalpha(image.convert("RGBA").getchannel("A"))
    converted.info = {}
    return converted


def _transform_of(image: Image.Image, profile: bytes) -> ImageCms.ImageCmsTransform | None:
    if not profile or image.mode not in _PROFILED_MODES:
        return None
    return _transform(profile, "CMYK" if image.mode == "CMYK" else "RGB")


@lru_cache(TRANSFORMS_MAX)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Returns the transform from a profile to sRGB; None if none is needed or possible."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        described = (source.profile.profile_description or "").lower()
        if source.profile.xcolor_space.strip() != mode or described.startswith(_SRGB_NAMES):
            return None
        return ImageCms.buildTransform(source, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _on_white(image: Image.Image) -> Image.Image:
    """Composites an image onto white and converts it to `L` or `RGB`. Of 16-bit values the upper eight bits are kept."""
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(colours, mask=colours.getchannel("A"))
        return white
    if image.mode in _GRAY_16_MODES:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in {"L", "RGB"}:
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


# Encoding and scaling.


def _encode(image: Image.Image, *, as_png: bool) -> tuple[bytes, str]:
    """Encodes an image without metadata. Returns the bytes and the format."""
    if not as_png:
        return _encode_small_jpeg(_on_white(image)), "JPEG"
    target = io.BytesIO()
    kept = image if image.mode in _KEPT_MODES else image.convert("RGBA")
    _in_memory(kept).save(target, "PNG", exif=b"", icc_profile=None)
    _check_size(target.getvalue(), "PNG")
    return split_file(target.getvalue()).essential, "PNG"


def _encode_small_jpeg(image: Image.Image) -> bytes:
    """Encodes with the highest quality that is within IMAGE_BYTES_MAX. A small original may need many bytes as a JPEG."""
    encoded = b""
    for quality in REENCODED_QUALITIES:
        encoded = _encode_jpeg(image, quality)
        if len(encoded) <= IMAGE_BYTES_MAX:
            break
    return encoded


def _check_size(kept: bytes, kept_format: str) -> None:
    if len(kept) > IMAGE_BYTES_MAX:
        raise image_error(
            "IMAGE_TOO_LARGE",
            f"converted to {kept_format} for storage, the image has {len(kept)} bytes, the "
            f"maximum is {IMAGE_BYTES_MAX}; scale it down or cut it into tiles",
            size_bytes=len(kept),
            size_bytes_max=IMAGE_BYTES_MAX,
        )


def _encode_jpeg(image: Image.Image, quality: int) -> bytes:
    target = io.BytesIO()
    _in_memory(image).save(target, "JPEG", quality=quality, exif=b"", icc_profile=None, comment=b"")
    return target.getvalue()


def _in_memory(image: Image.Image) -> Image.Image:
    """Detaches an image from its file. When saving, Pillow asks for the path of that file, which the sandbox denies."""
    return image if type(image) is Image.Image else image.copy()


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def _thumbnail(image: Image.Image) -> Image.Image:
    """Composites an image onto white and scales it to at most 256 pixels on the longer side. Never enlarges."""
    shown = _on_white(image)
    scale = THUMBNAIL_SIDE_PX / max(shown.size)
    if scale >= 1:
        return shown
    return _resized(shown, (max(1, round(shown.width * scale)), max(1, round(shown.height * scale))))


# The perceptual hash (pHash: Zauner, 2010).

_HASH_SIDE, _HASH_PIXELS_SIDE = 8, 32
_HASH_CONTRAST_MIN = 1.0  # root mean square, in gray levels of 256; anything flatter is noise from scaling and rounding


@cache
def _cosines() -> NDArray[np.float64]:
    """Returns the eight lowest-frequency rows of the 32-sample DCT-II, `(8, 32)`, unscaled."""
    frequency, sample = np.arange(_HASH_SIDE)[:, None], np.arange(_HASH_PIXELS_SIDE)[None, :]
    cosines: NDArray[np.float64] = np.cos(np.pi * frequency * (2 * sample + 1) / (2 * _HASH_PIXELS_SIDE))
    return cosines


def _perceptual_hash(thumbnail: Image.Image) -> int:
    """Computes the perceptual hash: one bit for each of the 8 × 8 lowest frequencies of the gray 32 × 32 image, set if above the median.

    Returns 0, which means no hash, for an image without structure. Otherwise all flat images would be near-duplicates of each other.
    """
    gray = _resized(thumbnail.convert("L"), (_HASH_PIXELS_SIDE, _HASH_PIXELS_SIDE))
    frequencies = _cosines() @ np.asarray(gray, np.float64) @ _cosines().T
    structure = np.square(frequencies).sum() - frequencies[0, 0] ** 2
    if structure < (_HASH_CONTRAST_MIN * _HASH_PIXELS_SIDE**2 / 2) ** 2:  # for a single wave along both axes
        return 0
    middle = np.sort(frequencies, axis=None)[_HASH_SIDE**2 // 2 - 1 : _HASH_SIDE**2 // 2 + 1].mean()
    bits = frequencies > middle
    return int.from_bytes(np.packbits(bits).tobytes(), "big")

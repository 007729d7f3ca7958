"""Pictures from anywhere made safe and uniform: checked by header, decoded, turned upright, stripped, hashed, and scaled for models.

Everything here is a pure function of bytes and may be called from any thread. Bytes nobody vouches for should be decoded in
a child process: `vesta_common.sandbox`.
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
    refuse,
    take_apart,
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
REENCODED_QUALITIES = (95, 85, 75)  # the first with which the picture is small enough to be read again
TRANSFORMS_MAX = 16

Pixels = NDArray[np.uint8]

# By name, so that a reader that Pillow might come to prefer never sees the bytes.
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
    """A picture in the form in which the platform keeps it.

    Attributes:
        data: JPEG or PNG, upright, sRGB, without any metadata. A JPEG or PNG that was so already keeps its pixels bit for bit.
        mime_type: `image/jpeg` or `image/png`.
        perceptual_hash: 64 bits; near-duplicates differ in few of them.
        thumbnail_jpeg: at most 256 pixels on its long side.
        taken_time: from EXIF, aware, UTC; a camera that names no time zone is taken to be set to UTC. None where it says nothing.
    """

    data: bytes
    mime_type: str
    width_px: int
    height_px: int
    perceptual_hash: int
    thumbnail_jpeg: bytes
    taken_time: datetime | None


def warm_up() -> None:
    """Reads a picture of every format, so that all that Pillow and Python load when they first need it is loaded.

    For processes that can read no files later, and so that their first call is as quick as the next.
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
    """Format and size of an untrusted file, by its content, without decoding it.

    Raises:
        InvalidArgument: it is no single image within the limits; see `vesta_common.media.image_formats.take_apart`.
    """
    return take_apart(data).header


def normalise(data: bytes) -> NormalisedImage:
    """Decodes an untrusted file wholly and brings it into the form in which the platform keeps pictures.

    The same picture gives the same bytes, and so the same SHA-256, whatever metadata it came with. What it answers is within
    the limits itself: whoever reads it later takes it.

    Raises:
        InvalidArgument: as `inspect`, or its pixels cannot be decoded (IMAGE_TRUNCATED, IMAGE_CORRUPT, IMAGE_TOO_COSTLY), or
            they take more bytes in the form in which they are kept than a file may have (IMAGE_TOO_LARGE).
    """
    file = take_apart(data)
    try:
        image = _open(file)
        exif, profile = _exif(file, image), _profile(file, image)
        if _is_normal(file, image, exif, profile):
            kept, kept_format = file.essential, file.header.format
            # At a smaller scale every bit of a JPEG is still read, and damage found; only the pixels are fewer.
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
    """What a model sees of a file: `(256, 256, 3)` RGB, the whole picture squashed to a square, alpha on white.

    Training, serving and Triton all see pictures through this function alone, whether as they came or as `normalise` keeps
    them. A JPEG is decoded at the smallest scale that is large enough.

    Raises:
        InvalidArgument: as `normalise`.
    """
    file = take_apart(data)
    try:
        image = _load(_open(file), side_px_min=MODEL_SIDE_PX)
        squashed = _resized(_on_white(image), (MODEL_SIDE_PX, MODEL_SIDE_PX))
        picture = _turned(_to_srgb(squashed, _profile(file, image)), _exif(file, image), file.header.format)
        return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    except Exception as error:
        raise _refusal(error) from error


def _open(file: ImageFile) -> Image.Image:
    """The picture, its pixels not decoded yet; of the essential bytes alone."""
    header = file.header
    try:
        image = _READERS[header.format](io.BytesIO(file.essential))  # type: ignore[call-arg]
    except OSError:
        if (
            header.format == "WEBP"
        ):  # its reader says the same of a broken file and of two pictures that it has no memory for
            bytearray(2 * 4 * header.width_px * header.height_px)
        raise
    expected, found = (header.width_px, header.height_px), image.size
    if found != expected and not (header.format == "TIFF" and found == expected[::-1]):  # Pillow turns TIFFs by itself
        raise corrupt("its headers contradict each other")
    if image.mode not in _READ_MODES:
        raise refuse(
            "IMAGE_FORMAT_UNSUPPORTED",
            f"pixels of the kind {image.mode} cannot be shown; save them with 8 or 16 bits a channel",
        )
    return image


def _load(image: Image.Image, side_px_min: int | None = None) -> Image.Image:
    """The same picture, decoded.

    Args:
        side_px_min: a JPEG may come scaled down by 2, 4 or 8, as long as both its sides keep so many pixels.
    """
    if side_px_min and isinstance(image, JpegImagePlugin.JpegImageFile):
        image.draft("RGB", (side_px_min, side_px_min))
    image.load()
    return image


def _is_normal(file: ImageFile, image: Image.Image, exif: Image.Exif, profile: bytes) -> bool:
    """Whether the pixels are to be kept as they are."""
    return (
        file.header.format in _KEPT_FORMATS
        and image.mode in _KEPT_MODES
        and _turn(exif, file.header.format) is None
        and _transform_of(image, profile) is None
    )


def _refusal(error: Exception) -> InvalidArgument:
    """What to say about a file at which Pillow gave up; its readers raise whatever they meet."""
    if isinstance(error, InvalidArgument):
        return error
    if isinstance(error, MemoryError):
        return refuse("IMAGE_TOO_COSTLY", "the image needs more memory than it may; scale it down")
    if isinstance(error, EOFError | struct.error | IndexError) or "runcat" in str(error):
        return truncated("the picture")
    return corrupt(f"{type(error).__name__}: {str(error)[:200]}")


# Upright.

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
    """The file's EXIF; empty where it is broken, for a picture is not its metadata."""
    exif = Image.Exif()
    try:
        if file.header.format not in _KEPT_FORMATS:
            return image.getexif()
        if file.exif:
            exif.load(file.exif)
    except Exception:  # noqa: BLE001 - Pillow raises whatever it meets
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
    except Exception:  # noqa: BLE001 - Pillow raises whatever it meets
        return None
    offset = re.fullmatch(r"([+-])(\d\d):([0-5]\d)", str(details.get(_TAKEN_OFFSET, "")).strip(" \x00"))
    if not offset or int(offset[2]) > 14:
        return taken
    ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
    return taken.replace(tzinfo=timezone(ahead if offset[1] == "+" else -ahead)).astimezone(UTC)


# Colours.

_SRGB_NAMES = ("srgb", "c2")  # "c2" is the name of a compact sRGB that large sites embed
_PROFILED_MODES = frozenset({"RGB", "RGBA", "P", "CMYK"})


def _profile(file: ImageFile, image: Image.Image) -> bytes:
    return file.icc or image.info.get("icc_profile") or b""


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The same object where it is sRGB already. A profile that is broken, or for other colours than the picture's, is ignored."""
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
    """From the profile's colours to sRGB; None where there is nothing to do or it cannot be done."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        described = (source.profile.profile_description or "").lower()
        if source.profile.xcolor_space.strip() != mode or described.startswith(_SRGB_NAMES):
            return None
        return ImageCms.buildTransform(source, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _on_white(image: Image.Image) -> Image.Image:
    """The picture as one sees it on white paper, `L` or `RGB`; of 16 bits the upper eight."""
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
    """Bytes and format, without metadata."""
    if not as_png:
        return _encode_small_jpeg(_on_white(image)), "JPEG"
    target = io.BytesIO()
    kept = image if image.mode in _KEPT_MODES else image.convert("RGBA")
    _in_memory(kept).save(target, "PNG", exif=b"", icc_profile=None)
    _check_size(target.getvalue(), "PNG")
    return take_apart(target.getvalue()).essential, "PNG"


def _encode_small_jpeg(image: Image.Image) -> bytes:
    """As good as it may be: a picture that came in few bytes may need very many as a JPEG."""
    encoded = b""
    for quality in REENCODED_QUALITIES:
        encoded = _encode_jpeg(image, quality)
        if len(encoded) <= IMAGE_BYTES_MAX:
            break
    return encoded


def _check_size(kept: bytes, kept_format: str) -> None:
    if len(kept) > IMAGE_BYTES_MAX:
        raise refuse(
            "IMAGE_TOO_LARGE",
            f"as a {kept_format}, as which it would be kept, the image has {len(kept)} bytes, more than {IMAGE_BYTES_MAX}; "
            "scale it down or cut it into tiles",
            size_bytes=len(kept),
            size_bytes_max=IMAGE_BYTES_MAX,
        )


def _encode_jpeg(image: Image.Image, quality: int) -> bytes:
    target = io.BytesIO()
    _in_memory(image).save(target, "JPEG", quality=quality, exif=b"", icc_profile=None, comment=b"")
    return target.getvalue()


def _in_memory(image: Image.Image) -> Image.Image:
    """The picture apart from the file that it was read from: of such a file Pillow asks where it lies, which a sandbox denies."""
    return image if type(image) is Image.Image else image.copy()


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def _thumbnail(image: Image.Image) -> Image.Image:
    """On white, at most 256 pixels on its long side, never larger than it was."""
    shown = _on_white(image)
    scale = THUMBNAIL_SIDE_PX / max(shown.size)
    if scale >= 1:
        return shown
    return _resized(shown, (max(1, round(shown.width * scale)), max(1, round(shown.height * scale))))


# The perceptual hash (pHash: Zauner, 2010).

_HASH_SIDE, _HASH_PIXELS_SIDE = 8, 32
_HASH_CONTRAST_MIN = (
    1.0  # root mean square, in gray levels of 256: what is flatter is the noise of scaling and rounding
)


@cache
def _cosines() -> NDArray[np.float64]:
    """The eight lowest rows of the DCT-II of 32 samples, `(8, 32)`, unscaled."""
    frequency, sample = np.arange(_HASH_SIDE)[:, None], np.arange(_HASH_PIXELS_SIDE)[None, :]
    cosines: NDArray[np.float64] = np.cos(np.pi * frequency * (2 * sample + 1) / (2 * _HASH_PIXELS_SIDE))
    return cosines


def _perceptual_hash(thumbnail: Image.Image) -> int:
    """Whether each of the 8 × 8 lowest frequencies of the gray picture at 32 × 32 is above their median: 64 bits, row by row.

    0, which says nothing, for a picture without structure: all flat pictures would be near-duplicates of each other.
    """
    gray = _resized(thumbnail.convert("L"), (_HASH_PIXELS_SIDE, _HASH_PIXELS_SIDE))
    frequencies = _cosines() @ np.asarray(gray, np.float64) @ _cosines().T
    structure = np.square(frequencies).sum() - frequencies[0, 0] ** 2
    if structure < (_HASH_CONTRAST_MIN * _HASH_PIXELS_SIDE**2 / 2) ** 2:  # of one wave along both axes
        return 0
    middle = np.sort(frequencies, axis=None)[_HASH_SIDE**2 // 2 - 1 : _HASH_SIDE**2 // 2 + 1].mean()
    bits = frequencies > middle
    return int.from_bytes(np.packbits(bits).tobytes(), "big")

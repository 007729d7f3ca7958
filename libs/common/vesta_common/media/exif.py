"""EXIF metadata of images: orientation, and the time at which the image was taken."""

import re
from datetime import UTC, datetime, timedelta, timezone

from PIL import Image

from vesta_common.media.image_formats import ImageFile

_ORIENTATION, _EXIF_IFD, _TAKEN, _TAKEN_OFFSET = 0x0112, 0x8769, 0x9003, 0x9011
_ROTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def exif_of(file: ImageFile, image: Image.Image) -> Image.Exif:
    """Returns the EXIF data of a file; empty if it is corrupt, because corrupt metadata does not invalidate the image."""
    exif = Image.Exif()
    try:
        if file.header.format not in {"JPEG", "PNG"}:
            return image.getexif()
        if file.exif:
            exif.load(file.exif)
    except Exception:  # noqa: BLE001 - Pillow raises many types of errors
        return Image.Exif()
    return exif


_SIDEWAYS = frozenset(
    {
        Image.Transpose.TRANSPOSE,
        Image.Transpose.ROTATE_270,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_90,
    }
)


def upright(image: Image.Image, exif: Image.Exif, image_format: str) -> Image.Image:
    """Returns the image rotated upright; the same object if it is upright."""
    turn = rotation(exif, image_format)
    return image if turn is None else image.transpose(turn)


def is_sideways(exif: Image.Exif, image_format: str) -> bool:
    """Whether rotation exchanges the width and height of an image."""
    return rotation(exif, image_format) in _SIDEWAYS


def rotation(exif: Image.Exif, image_format: str) -> Image.Transpose | None:
    """Returns how the image must be rotated to be upright; None if it is. Pillow rotates TIFFs by itself."""
    return _ROTATIONS.get(exif.get(_ORIENTATION, 1)) if image_format != "TIFF" else None


def taken_time(exif: Image.Exif) -> datetime | None:
    """Returns the time at which the image was taken, UTC if EXIF has no time zone; None if EXIF has no time."""
    try:
        details = exif.get_ifd(_EXIF_IFD)
        local_time = datetime.strptime(str(details[_TAKEN]).strip(" \x00"), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except Exception:  # noqa: BLE001 - Pillow raises many types of errors
        return None
    offset = re.fullmatch(r"([+-])(\d\d):([0-5]\d)", str(details.get(_TAKEN_OFFSET, "")).strip(" \x00"))
    if not offset or int(offset[2]) > 14:
        return local_time
    ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
    return local_time.replace(tzinfo=timezone(ahead if offset[1] == "+" else -ahead)).astimezone(UTC)


def sample_exif() -> Image.Exif:
    """Returns EXIF metadata with an orientation and a time."""
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    exif.get_ifd(_EXIF_IFD)[_TAKEN] = "2026:01:01 00:00:00"
    return exif

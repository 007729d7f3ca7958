"""Parses the structure of image files without decoding pixels: format, size, number of frames, metadata.

The input is untrusted. Parsing takes time linear in its size, and every length in the file is checked before use.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from vesta_common.errors import InvalidArgument

IMAGE_BYTES_MAX = 32 * 1024 * 1024
IMAGE_PIXELS_MAX = 64_000_000
MODEL_SIDE_PX = 256
"""Side of the square that models receive as input."""
IMAGE_SIDE_PX_MAX = 65_500  # the limit of JPEG encoders
METADATA_BYTES_MAX = 8 * 1024 * 1024
ICC_BYTES_MAX = 4 * 1024 * 1024
PARTS_MAX = 200_000  # segments, chunks or blocks; a valid GIF of 32 MiB has up to 130,000
JPEG_SCANS_MAX = 100  # a usual progressive file has about ten; thousands are a denial-of-service attack on the decoder

ACCEPTED = "JPEG, PNG, WebP, BMP, TIFF or a still GIF"


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


def refuse(reason: str, message: str, **metadata: object) -> InvalidArgument:
    """Returns the error for a rejected image."""
    return InvalidArgument(message, reason=reason, metadata={key: str(value) for key, value in metadata.items()})


def truncated(what: str) -> InvalidArgument:
    """Returns the error for a truncated file."""
    return refuse("IMAGE_TRUNCATED", f"the file is truncated in {what}; upload it again")


def corrupt(what: str) -> InvalidArgument:
    """Returns the error for an inconsistent file."""
    return refuse("IMAGE_CORRUPT", f"the image cannot be read: {what}; export it again from the original")


def take_apart(data: bytes) -> ImageFile:
    """Checks the headers of an untrusted file against the limits and splits the file into its parts.

    Raises:
        InvalidArgument: with reason IMAGE_EMPTY, IMAGE_TOO_LARGE, IMAGE_FORMAT_UNSUPPORTED, IMAGE_TRUNCATED, IMAGE_CORRUPT,
            IMAGE_ANIMATED, IMAGE_METADATA_TOO_LARGE or IMAGE_TOO_EXPENSIVE.
    """
    if not data:
        raise refuse("IMAGE_EMPTY", "the file is empty; upload an image")
    if len(data) > IMAGE_BYTES_MAX:
        raise refuse(
            "IMAGE_TOO_LARGE",
            f"the file has {len(data)} bytes, the maximum is {IMAGE_BYTES_MAX}; scale the image down or compress it",
            size_bytes=len(data),
            size_bytes_max=IMAGE_BYTES_MAX,
        )
    file = _take_apart(data)
    _check_limits(file.header)
    return file


def _take_apart(data: bytes) -> ImageFile:
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data.startswith(PNG_SIGNATURE):
            return _png(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return ImageFile(_webp(data), data)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return ImageFile(_gif(data), data)
        if data.startswith(b"BM"):
            return ImageFile(_bmp(data), data)
        if data.startswith((b"II*\x00", b"MM\x00*")):
            return ImageFile(_tiff(data), data)
    except (struct.error, IndexError):
        raise truncated("its header") from None
    raise refuse("IMAGE_FORMAT_UNSUPPORTED", f"this is {_guess(data)}; supported formats: {ACCEPTED}")


def _check_limits(header: ImageHeader) -> None:
    width, height = header.width_px, header.height_px
    if width < 1 or height < 1:
        raise corrupt(f"its size is {width} × {height} pixels")
    if width * height > IMAGE_PIXELS_MAX or max(width, height) > IMAGE_SIDE_PX_MAX:
        raise refuse(
            "IMAGE_TOO_LARGE",
            f"the image has {width} × {height} pixels, the maximum is "
            f"{IMAGE_PIXELS_MAX // 1000000} megapixels and {IMAGE_SIDE_PX_MAX} pixels per edge; "
            "scale it down or cut it into tiles",
            width_px=width,
            height_px=height,
        )
    if header.frames > 1:
        raise refuse(
            "IMAGE_ANIMATED",
            "the file contains more than one image; upload each image separately",
            frames=header.frames,
        )


def _check_metadata(size_bytes: int) -> None:
    if size_bytes > METADATA_BYTES_MAX:
        raise refuse(
            "IMAGE_METADATA_TOO_LARGE",
            f"the file has more than {METADATA_BYTES_MAX} bytes of metadata; remove the metadata",
            size_bytes=size_bytes,
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


# JPEG (ITU T.81): segments of marker, length, body; after SOS comes entropy-coded data, in which FF is followed by 00 or RSTn.

_SOI, _EOI, _SOS, _APP0, _APP1, _APP2, _APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})  # Huffman, arithmetic, quantisation, restart interval
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_FILL = re.compile(rb"\xff+")
_EXIF_MAGIC, _ICC_MAGIC = b"Exif\x00\x00", b"ICC_PROFILE\x00"


def _jpeg(data: bytes) -> ImageFile:
    """Keeps the segments that a decoder needs: tables, frame, scans, and the colour information of APP0 and APP14."""
    kept: list[bytes] = [b"\xff\xd8"]
    markers = _jpeg_markers(data)
    size: tuple[int, int] | None = None
    exif, icc, dropped_bytes, scans, position = b"", {}, 0, 0, 2
    for parts in count():
        _check_parts(parts)
        marker, position = _jpeg_marker(data, position)
        if marker == _EOI:
            kept.append(b"\xff\xd9")
            break
        if marker in _STANDALONE:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        body = data[position + 2 : position + length]
        if length < 2 or len(body) != length - 2:
            raise truncated("a JPEG segment")
        segment_end = position + length
        if marker in _SOF:
            if size is not None:
                raise corrupt("it has more than one frame header")
            _precision, height, width = struct.unpack_from(">BHH", body)
            size = (width, height)
        if marker == _SOS:
            scans += 1
            segment_end = _jpeg_scan_end(segment_end, markers)
            if size is None:
                raise corrupt("its pixels precede its size")
        if marker in _SOF or marker in _TABLES or marker == _SOS:
            kept.append(b"\xff" + bytes([marker]) + data[position:segment_end])
        elif marker == _APP0 and body.startswith(b"JFIF\x00") and len(kept) == 1:
            kept.append(b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00")
        elif marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            kept.append(b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + body[11:12])
        else:
            dropped_bytes += length
            if marker == _APP1 and body.startswith(_EXIF_MAGIC) and not exif:
                exif = body[len(_EXIF_MAGIC) :]
            elif marker == _APP2 and body.startswith(_ICC_MAGIC):
                icc[body[12]] = body[14:]
        position = segment_end
        _check_metadata(dropped_bytes)
        _check_scans(scans)
    if size is None or not scans:
        raise truncated("the JPEG's headers")
    profile = b"".join(icc[number] for number in sorted(icc))
    essential = b"".join(kept)
    return ImageFile(ImageHeader("JPEG", *size, 1), essential, exif, profile if len(profile) <= ICC_BYTES_MAX else b"")


def _jpeg_marker(data: bytes, position: int) -> tuple[int, int]:
    """Returns the marker at `position` and the position of its segment length."""
    if position >= len(data):
        raise truncated("the picture")
    fill = _FILL.match(data, position)
    if fill is None:
        raise corrupt("a JPEG marker is missing")
    return data[fill.end()], fill.end() + 1


def _jpeg_scan_end(start: int, markers: NDArray[np.int64]) -> int:
    """Returns the end of the entropy-coded data that begins at `start`."""
    following = int(np.searchsorted(markers, start))
    if following == len(markers):
        raise truncated("the picture")
    return int(markers[following])


def _jpeg_markers(data: bytes) -> NDArray[np.int64]:
    """Returns the positions that are markers if they are inside entropy-coded data: FF not followed by 00, RSTn or another FF."""
    octets = np.frombuffer(data, np.uint8)
    places = np.flatnonzero(octets[:-1] == 0xFF)
    following = octets[places + 1]
    markers: NDArray[np.int64] = places[(following != 0x00) & ((following & 0xF8) != 0xD0) & (following != 0xFF)]
    return markers


def _check_parts(parts: int) -> None:
    if parts > PARTS_MAX:
        raise refuse("IMAGE_TOO_EXPENSIVE", f"the file consists of more than {PARTS_MAX} parts; export it again")


def _check_scans(scans: int) -> None:
    if scans > JPEG_SCANS_MAX:
        raise refuse(
            "IMAGE_TOO_EXPENSIVE", f"the JPEG has more than {JPEG_SCANS_MAX} scans; save it as a baseline JPEG"
        )


# PNG (W3C PNG 3): chunks of length, type, body, CRC.

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def _png(data: bytes) -> ImageFile:
    """Keeps the chunks for header, palette, transparency and pixels."""
    kept, frames, exif, icc, dropped_bytes = [PNG_SIGNATURE], 1, b"", b"", 0
    size: tuple[int, int] | None = None
    for kind, start, end in _png_chunks(data):
        if size is None:
            if kind != b"IHDR":
                raise corrupt("its first chunk is not its header")
            width, height = struct.unpack_from(">II", data, start)
            size = (width, height)
        if kind in _PNG_KEPT:
            kept.append(data[start - 8 : end + 4])
            continue
        dropped_bytes += end - start
        _check_metadata(dropped_bytes)
        if kind == b"acTL":
            (frames,) = struct.unpack_from(">I", data, start)
        elif kind == b"eXIf":
            exif = data[start:end]
        elif kind == b"iCCP":
            icc = _png_profile(data[start:end])
        elif not kind[0] & 0x20:
            raise corrupt("it has an unknown critical chunk")
    if size is None:
        raise truncated("the PNG's header")
    return ImageFile(ImageHeader("PNG", *size, frames), b"".join(kept), exif, icc)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Iterates over the chunks up to and including IEND: type, start and end of the body."""
    position = len(PNG_SIGNATURE)
    for parts in count():
        _check_parts(parts)
        if position + 12 > len(data):
            raise truncated("the picture")
        length, kind = struct.unpack_from(">I4s", data, position)
        start, end = position + 8, position + 8 + length
        if end + 4 > len(data):
            raise truncated("a PNG chunk")
        yield kind, start, end
        if kind == b"IEND":
            return
        position = end + 4


def _png_profile(chunk: bytes) -> bytes:
    """Returns the profile in an iCCP chunk; empty if it is corrupt or exceeds ICC_BYTES_MAX."""
    _name, _, rest = chunk.partition(b"\x00")
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(rest[1:], ICC_BYTES_MAX)
    except zlib.error:
        return b""
    return profile if inflater.eof else b""


# Files in the other formats are re-encoded, so only their size and number of frames are parsed.


def _webp(data: bytes) -> ImageHeader:
    """Parses a WebP file (RFC 9649)."""
    (riff_bytes,) = struct.unpack_from("<I", data, 4)
    if riff_bytes + 8 > len(data):
        raise truncated("the picture")
    size, frames, metadata_bytes, position, end = None, 0, 0, 12, riff_bytes + 8
    parts = 0
    while position + 8 <= end:
        parts += 1
        _check_parts(parts)
        kind, length = struct.unpack_from("<4sI", data, position)
        body = position + 8
        if body + length > end:
            raise truncated("a WebP chunk")
        if kind == b"VP8X" and size is None:
            size = (
                1 + int.from_bytes(data[body + 4 : body + 7], "little"),
                1 + int.from_bytes(data[body + 7 : body + 10], "little"),
            )
        elif kind == b"VP8 ":
            frames += 1
            width, height = struct.unpack_from("<HH", data, body + 6)
            size = size or (width & 0x3FFF, height & 0x3FFF)
        elif kind == b"VP8L":
            frames += 1
            (bits,) = struct.unpack_from("<I", data, body + 1)
            size = size or (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif kind == b"ANMF":
            frames += 1
        elif kind not in {b"ALPH", b"ANIM"}:
            metadata_bytes += length
        position = body + length + (length & 1)
    _check_metadata(metadata_bytes)
    if size is None or not frames:
        raise truncated("the WebP's headers")
    return ImageHeader("WEBP", *size, frames)


def _gif(data: bytes) -> ImageHeader:
    """Parses a GIF file (GIF89a). Stops at the second picture or at the end."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position, frames, metadata_bytes = 13 + _gif_palette_bytes(flags), 0, 0
    parts = 0
    while frames < 2 and position < len(data) and data[position] != 0x3B:
        parts += 1
        _check_parts(parts)
        start, kind = position, data[position]
        if kind == 0x2C:
            frames += 1
            left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", data, position + 1)
            width, height = max(width, left + frame_width), max(height, top + frame_height)
            position = _gif_blocks_end(data, position + 11 + _gif_palette_bytes(flags))
        elif kind == 0x21:
            position = _gif_blocks_end(data, position + 2)
            metadata_bytes += position - start
        else:
            raise corrupt("a GIF block has an unknown type")
    _check_metadata(metadata_bytes)
    if not frames:
        raise truncated("the GIF's headers")
    return ImageHeader("GIF", width, height, frames)


def _gif_palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_blocks_end(data: bytes, position: int) -> int:
    for parts in count():
        _check_parts(parts)
        if not data[position]:
            break
        position += data[position] + 1
    return position + 1


def _bmp(data: bytes) -> ImageHeader:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    if header_bytes == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return ImageHeader("BMP", width, abs(height), 1)


def _tiff(data: bytes) -> ImageHeader:
    """Parses a TIFF file (TIFF 6.0): the size in the first directory, and whether there is a second directory."""
    order = "<" if data.startswith(b"II") else ">"
    (position,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, position)
    sizes: dict[int, int] = {}
    for index in range(count):
        tag, kind, _values = struct.unpack_from(f"{order}HHI", data, position + 2 + 12 * index)
        if tag in {256, 257}:
            value = position + 10 + 12 * index
            (sizes[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, value)
    (following,) = struct.unpack_from(f"{order}I", data, position + 2 + 12 * count)
    return ImageHeader("TIFF", sizes.get(256, 0), sizes.get(257, 0), 2 if following else 1)

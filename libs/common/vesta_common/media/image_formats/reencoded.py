"""WebP, GIF, BMP and TIFF. Such files are re-encoded, so only their size and number of frames are parsed."""

import struct
from itertools import count

from vesta_common.media.image_formats.parts import ImageHeader, check_metadata, check_parts, corrupt, truncated


def webp_header(data: bytes) -> ImageHeader:
    """Parses a WebP file (RFC 9649)."""
    (riff_bytes,) = struct.unpack_from("<I", data, 4)
    if riff_bytes + 8 > len(data):
        raise truncated("the picture")
    size, frames, metadata_bytes, position, end = None, 0, 0, 12, riff_bytes + 8
    parts = 0
    while position + 8 <= end:
        parts += 1
        check_parts(parts)
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
    check_metadata(metadata_bytes)
    if size is None or not frames:
        raise truncated("the WebP's headers")
    return ImageHeader("WEBP", *size, frames)


def gif_header(data: bytes) -> ImageHeader:
    """Parses a GIF file (GIF89a). Stops at the second picture or at the end."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position, frames, metadata_bytes = 13 + _gif_palette_bytes(flags), 0, 0
    parts = 0
    while frames < 2 and position < len(data) and data[position] != 0x3B:
        parts += 1
        check_parts(parts)
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
    check_metadata(metadata_bytes)
    if not frames:
        raise truncated("the GIF's headers")
    return ImageHeader("GIF", width, height, frames)


def _gif_palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_blocks_end(data: bytes, position: int) -> int:
    for parts in count():
        check_parts(parts)
        if not data[position]:
            break
        position += data[position] + 1
    return position + 1


def bmp_header(data: bytes) -> ImageHeader:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    if header_bytes == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return ImageHeader("BMP", width, abs(height), 1)


def tiff_header(data: bytes) -> ImageHeader:
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

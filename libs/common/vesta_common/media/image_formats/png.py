"""PNG (W3C PNG 3): chunks of length, type, body, CRC."""

import struct
import zlib
from collections.abc import Iterator
from itertools import count

from vesta_common.media.image_formats.parts import (
    ICC_BYTES_MAX,
    ImageFile,
    ImageHeader,
    check_metadata,
    check_parts,
    corrupt,
    truncated,
)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NEEDED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def read_png(data: memoryview) -> ImageFile:
    """Keeps the chunks for header, palette, transparency and pixels."""
    essential_parts: list[bytes | memoryview] = [PNG_SIGNATURE]
    frames, exif, icc, dropped_bytes = 1, b"", b"", 0
    size: tuple[int, int] | None = None
    for kind, start, end in _chunks(data):
        if size is None:
            if kind != b"IHDR":
                raise corrupt("its first chunk is not its header")
            width, height = struct.unpack_from(">II", data, start)
            size = (width, height)
        if kind in _NEEDED:
            essential_parts.append(data[start - 8 : end + 4])
            continue
        dropped_bytes += end - start
        check_metadata(dropped_bytes)
        if kind == b"acTL":
            (frames,) = struct.unpack_from(">I", data, start)
        elif kind == b"eXIf":
            exif = bytes(data[start:end])
        elif kind == b"iCCP":
            icc = _profile(bytes(data[start:end]))
        elif not kind[0] & 0x20:
            raise corrupt("it has an unknown critical chunk")
    if size is None:
        raise truncated("the PNG's header")
    return ImageFile(ImageHeader("PNG", *size, frames), b"".join(essential_parts), exif, icc)


def _chunks(data: memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Iterates over the chunks up to and including IEND: type, start and end of the body."""
    position = len(PNG_SIGNATURE)
    for parts in count():
        check_parts(parts)
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


def _profile(chunk: bytes) -> bytes:
    """Returns the profile in an iCCP chunk; empty if it is corrupt or exceeds ICC_BYTES_MAX."""
    _name, _, rest = chunk.partition(b"\x00")
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(rest[1:], ICC_BYTES_MAX)
    except zlib.error:
        return b""
    return profile if inflater.eof else b""

"""JPEG (ITU T.81): segments of marker, length, body; after SOS comes entropy-coded data, in which FF is followed by 00 or RSTn."""

import re
import struct
from itertools import count

import numpy as np
from numpy.typing import NDArray

from vesta_common.media.image_formats.parts import (
    ICC_BYTES_MAX,
    ImageFile,
    ImageHeader,
    check_metadata,
    check_parts,
    corrupt,
    image_error,
    truncated,
)

SCANS_MAX = 100  # a usual progressive file has about ten; thousands are a denial-of-service attack on the decoder

_SOI, _EOI, _SOS, _APP0, _APP1, _APP2, _APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN_DCT = frozenset({0xC0, 0xC1, 0xC2})
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})  # Huffman, arithmetic, quantisation, restart interval
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_FILL = re.compile(rb"\xff+")
_EXIF_MAGIC, _ICC_MAGIC = b"Exif\x00\x00", b"ICC_PROFILE\x00"


def read_jpeg(data: memoryview) -> ImageFile:
    """Keeps the segments that a decoder needs: tables, frame, scans, and the colour information of APP0 and APP14."""
    essential_parts: list[bytes | memoryview] = [b"\xff\xd8"]
    markers = _markers(data)
    size: tuple[int, int] | None = None
    exif, icc, dropped_bytes, scans, position = b"", {}, 0, 0, 2
    pixel_bytes_min = pixel_bytes = 0
    for parts in count():
        check_parts(parts)
        marker, position = _marker(data, position)
        if marker == _EOI:
            essential_parts.append(b"\xff\xd9")
            break
        if marker in _STANDALONE:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        body = bytes(data[position + 2 : position + length])
        if length < 2 or len(body) != length - 2:
            raise truncated("a JPEG segment")
        segment_end = position + length
        if marker in _SOF:
            if size is not None:
                raise corrupt("it has more than one frame header")
            _precision, height, width = struct.unpack_from(">BHH", body)
            size = (width, height)
            pixel_bytes_min = _pixel_bytes_min(marker, width, height, body[6:])
        if marker == _SOS:
            scans += 1
            segment_end = _scan_end(segment_end, markers)
            pixel_bytes += segment_end - position - length
            if size is None:
                raise corrupt("its pixels precede its size")
        if marker in _SOF or marker in _TABLES or marker == _SOS:
            essential_parts += b"\xff" + bytes([marker]), data[position:segment_end]
        elif marker == _APP0 and body.startswith(b"JFIF\x00") and len(essential_parts) == 1:
            essential_parts.append(b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00")
        elif marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            essential_parts.append(b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + body[11:12])
        else:
            dropped_bytes += length
            if marker == _APP1 and body.startswith(_EXIF_MAGIC) and not exif:
                exif = body[len(_EXIF_MAGIC) :]
            elif marker == _APP2 and body.startswith(_ICC_MAGIC):
                icc[body[12]] = body[14:]
        position = segment_end
        check_metadata(dropped_bytes)
        _check_scans(scans)
    if size is None or not scans:
        raise truncated("the JPEG's headers")
    if pixel_bytes < pixel_bytes_min:  # a decoder would fill the missing pixels with gray
        raise truncated("the picture")
    profile = b"".join(icc[number] for number in sorted(icc))
    essential = b"".join(essential_parts)
    return ImageFile(ImageHeader("JPEG", *size, 1), essential, exif, profile if len(profile) <= ICC_BYTES_MAX else b"")


def _pixel_bytes_min(marker: int, width: int, height: int, components: bytes) -> int:
    """Returns the least size of the entropy-coded data: a Huffman code has at least one bit for each block of 8 × 8 samples.

    Args:
        components: three bytes per component of the frame header, of which the second has the two sampling factors.
    """
    factors = [divmod(octet, 16) for octet in components[1::3]]
    if marker not in _HUFFMAN_DCT or not all(across and down for across, down in factors):
        return 0
    across_max, down_max = (max(column) for column in zip(*factors, strict=True)) if factors else (1, 1)
    blocks = sum(
        -(-width * across // (8 * across_max)) * -(-height * down // (8 * down_max)) for across, down in factors
    )
    return blocks // 8


def _marker(data: memoryview, position: int) -> tuple[int, int]:
    """Returns the marker at `position` and the position of its segment length."""
    if position >= len(data):
        raise truncated("the picture")
    fill = _FILL.match(data, position)
    if fill is None:
        raise corrupt("a JPEG marker is missing")
    return data[fill.end()], fill.end() + 1


def _scan_end(start: int, markers: NDArray[np.int64]) -> int:
    """Returns the end of the entropy-coded data that begins at `start`."""
    following = int(np.searchsorted(markers, start))
    if following == len(markers):
        raise truncated("the picture")
    return int(markers[following])


def _markers(data: memoryview) -> NDArray[np.int64]:
    """Returns the positions that are markers if they are inside entropy-coded data: FF not followed by 00, RSTn or another FF."""
    octets = np.frombuffer(data, np.uint8)
    places = np.flatnonzero(octets[:-1] == 0xFF)
    following = octets[places + 1]
    markers: NDArray[np.int64] = places[(following != 0x00) & ((following & 0xF8) != 0xD0) & (following != 0xFF)]
    return markers


def _check_scans(scans: int) -> None:
    if scans > SCANS_MAX:
        raise image_error(
            "IMAGE_TOO_EXPENSIVE", f"the JPEG has more than {SCANS_MAX} scans; save it as a baseline JPEG"
        )

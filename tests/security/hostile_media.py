"""What is hostile: files that no door may take, each with the reason why, and sound ones to put beside them."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def _encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _bomb(side_px: int, pixels: bytes = b"") -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def _growing_webp() -> bytes:
    """Nine megapixels of noise that repeats: its header passes, and as a PNG, as which it would be kept, it is too large."""
    rows = np.random.default_rng(1).integers(0, 256, (4, 3000, 4), dtype=np.uint8)
    return _encoded(Image.fromarray(np.tile(rows, (750, 1, 1))), "WEBP", lossless=True, quality=0, method=0)


def noise(width: int) -> bytes:
    """A sound picture; another width is another picture."""
    return _encoded(Image.effect_noise((width, 200), 60).convert("RGB"), "JPEG")


def _hostile() -> dict[str, tuple[bytes, str]]:
    """File names with what is in them, and the reason for which each is refused."""
    photo, drawing = noise(300), _encoded(Image.effect_noise((300, 200), 80).convert("RGB"), "PNG")
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    animation: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
    return {
        "truncated.jpg": (photo[: len(photo) // 2], "IMAGE_TRUNCATED"),
        "truncated.png": (drawing[: len(drawing) // 2], "IMAGE_TRUNCATED"),
        "gigapixels.png": (_bomb(60_000, bytes(16 << 20)), "IMAGE_TOO_LARGE"),
        "hundred-megapixels.png": (_bomb(10_000), "IMAGE_TOO_LARGE"),
        "hundred-megapixels.jpg": (_encoded(Image.new("L", (10_000, 10_000)), "JPEG"), "IMAGE_TOO_LARGE"),
        "too-few-pixels.png": (_bomb(7_000), "IMAGE_TRUNCATED"),
        "growing.webp": (_growing_webp(), "IMAGE_TOO_LARGE"),
        "animated.gif": (_encoded(frames[0], "GIF", **animation), "IMAGE_ANIMATED"),
        "animated.png": (_encoded(frames[0], "PNG", **animation), "IMAGE_ANIMATED"),
        "wrong-extension.jpg": (b"%PDF-1.7 not an image at all", "IMAGE_FORMAT_UNSUPPORTED"),
        "vector.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', "IMAGE_FORMAT_UNSUPPORTED"),
        "empty.png": (b"", "IMAGE_EMPTY"),
    }


HOSTILE = _hostile()
REASONS = {name: reason for name, (_, reason) in HOSTILE.items()}

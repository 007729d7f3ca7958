"""Images with predicted objects and maps drawn on them. Requires Pillow (`pip install vesta-client[draw]`)."""

import hashlib
import io
from collections.abc import Iterable

from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps
from vesta_contracts.common.v1 import Annotation, SegmentationMap

from vesta.maps import map_rows
from vesta.objects import corners, mask_rows

TEXT_SHARE = 0.025
"""Height of the text, as a share of the longer side of the image."""
TEXT_PX_MIN = 10
MASK_OPACITY = 110
_HUES = 360


def draw(file: bytes, objects: Iterable[Annotation], segmentation: SegmentationMap | None = None) -> Image.Image:
    """Returns an image with the boxes, masks, concepts and scores of objects, over the pixels of a map.

    A concept has the same colour in all images.

    Args:
        file: the image file that was predicted.
        segmentation: the map that was predicted; each concept is written at its first pixel.

    Raises:
        PIL.UnidentifiedImageError: it is not an image file.
    """
    with Image.open(io.BytesIO(file)) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    text_px = max(TEXT_PX_MIN, round(TEXT_SHARE * max(picture.size)))
    font = ImageFont.load_default(text_px)
    canvas = ImageDraw.Draw(picture, "RGBA")
    _draw_map(canvas, segmentation or SegmentationMap(), font)
    for found in reversed(list(objects)):  # the best are on top
        colour = colour_of(found.concept)
        for row, start, end in mask_rows(found.mask):
            canvas.line((start, row, end - 1, row), fill=(*colour, MASK_OPACITY))
        x_min, y_min, x_max, y_max = corners(found)
        canvas.rectangle(
            (x_min, y_min, max(x_min, x_max - 1), max(y_min, y_max - 1)), outline=colour, width=max(1, text_px // 8)
        )
        _write(canvas, (x_min, y_min - text_px - 2), f"{found.concept} {found.score:.2f}", font, colour)
    return picture


def colour_of(concept: str) -> tuple[int, int, int]:
    """Returns the colour of a concept, red, green and blue."""
    hue = int.from_bytes(hashlib.sha256(concept.encode()).digest()[:2]) % _HUES
    red, green, blue = ImageColor.getrgb(f"hsl({hue}, 90%, 45%)")[:3]
    return red, green, blue


def _draw_map(
    canvas: ImageDraw.ImageDraw, segmentation: SegmentationMap, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    """Draws the pixels of each concept, then their names."""
    first: dict[str, tuple[int, int]] = {}
    for concept, row, start, end in map_rows(segmentation):
        canvas.line((start, row, end - 1, row), fill=(*colour_of(concept), MASK_OPACITY))
        first.setdefault(concept, (start, row))
    for concept, place in first.items():
        _write(canvas, place, concept, font, colour_of(concept))


def _write(
    canvas: ImageDraw.ImageDraw,
    position: tuple[float, float],
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    colour: tuple[int, int, int],
) -> None:
    """Writes white text on a coloured area, inside the image."""
    x, y = max(0.0, position[0]), max(0.0, position[1])
    canvas.rectangle(canvas.textbbox((x, y), text, font=font), fill=colour)
    canvas.text((x, y), text, fill="white", font=font)

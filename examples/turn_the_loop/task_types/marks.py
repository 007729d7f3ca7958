"""Text and frames on the images of the contact sheet."""

from functools import cache
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

RIGHT, WRONG, TRUTH = "#4ade80", "#f87171", "#ffffff"
TEXT_PX = 13
_LINE_PX = TEXT_PX + 5


@cache
def font() -> ImageFont.FreeTypeFont:
    """Returns the font that matplotlib contains, which has the letters of most alphabets."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", TEXT_PX)


def caption(image: Image.Image, place: tuple[float, int], text: str, colour: str) -> None:
    """Writes a line of text on a dark ground; `place` is its x in pixels, and the number of the line from the top."""
    x, line = place
    tag(image, (x, line * _LINE_PX), text, colour)


def tag(image: Image.Image, corner: tuple[float, float], text: str, colour: str) -> None:
    """Writes text on a dark ground, with its top left corner in pixels, as far as it is within the image."""
    draw = ImageDraw.Draw(image, "RGBA")
    x, y = max(0.0, corner[0]), min(max(0.0, corner[1]), image.height - _LINE_PX)
    width = draw.textlength(text, font=font())
    x = max(0.0, min(x, image.width - width - 6))
    draw.rectangle((x, y, x + width + 6, y + _LINE_PX), fill=(0, 0, 0, 150))
    draw.text((x + 3, y + 1), text, fill=colour, font=font())

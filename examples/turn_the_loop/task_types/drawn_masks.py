"""What the segmentations have in common in the demo: annotators' errors in masks, and masks on the contact sheet."""

import random

import numpy as np
from boxes import SizePx
from masks import Pixels, grown, moved, pixels_of
from PIL import Image
from scenes import Style
from scipy import ndimage
from vesta_contracts.common.v1 import Annotation

from task_types.drawn import ADD_SHARE, CONFUSE_SHARE, MISS_SHARE
from task_types.marks import TRUTH, tag
from task_types.objects import random_place

SHIFT_SHARE = 0.03
"""The standard deviation of the shift of a drawn mask in each direction, as a share of the side of a square of its area."""
EDGE_SHARE = 0.03
"""A drawn mask is grown or shrunk on all sides by at most this share of the same side."""
ERROR_RATES = (
    f"masks are shifted by {SHIFT_SHARE:.0%} of their size and grown or shrunk by up to {EDGE_SHARE:.0%}, {MISS_SHARE:.0%} of them are "
    f"missed and {CONFUSE_SHARE:.0%} confused, and {ADD_SHARE:.0%} of the images get one too many"
)
SCENES = Style("segmentation-scenes", digit_side_px=(72, 130), digits_max=4, concepts="01234")
OPACITY = 0.45


def redrawn_pixels(one: Annotation, draw: random.Random) -> Pixels:
    """Returns the pixels of a mask as an annotator draws them: shifted, and too large or too small."""
    pixels = pixels_of(one)
    side_px = float(np.sqrt(pixels.sum()))
    edge_px = draw.uniform(-EDGE_SHARE, EDGE_SHARE) * side_px
    shift_px = [draw.gauss(0, SHIFT_SHARE) * side_px for _ in range(2)]
    return moved(grown(pixels, round(edge_px)), round(shift_px[0]), round(shift_px[1]))


def invented_pixels(size_px: SizePx, draw: random.Random) -> Pixels:
    """Returns an ellipse of an eighth to a third of the image's sides at a random place."""
    x_min, y_min, x_max, y_max = random_place(size_px, draw)
    rows, columns = np.ogrid[: size_px[1], : size_px[0]]
    x, y = (columns + 0.5 - (x_min + x_max) / 2) / (x_max - x_min), (rows + 0.5 - (y_min + y_max) / 2) / (y_max - y_min)
    inside: Pixels = x**2 + y**2 <= 0.25
    return inside


def paint_found(image: Image.Image, found: Annotation, text: str, colour: str) -> None:
    """Fills a predicted mask, with a text at its top left."""
    pixels = pixels_of(found)
    _paint(image, pixels, colour, filled=True)
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    tag(image, (float(columns[0]), float(rows[0])), text, colour)


def paint_truth(image: Image.Image, truth: Annotation) -> None:
    """Draws the outline of a true mask."""
    _paint(image, pixels_of(truth), TRUTH, filled=False)


def _paint(image: Image.Image, pixels: Pixels, colour: str, *, filled: bool) -> None:
    """Draws a mask: its outline, and its pixels if `filled`."""
    shade = Image.new("RGB", image.size, colour)
    if filled:
        image.paste(shade, mask=Image.fromarray((255 * OPACITY * pixels).astype(np.uint8)))
    outline = pixels & ~ndimage.binary_erosion(pixels)
    image.paste(shade, mask=Image.fromarray((255 * outline).astype(np.uint8)))

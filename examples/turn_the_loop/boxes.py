"""Boxes of objects: made and compared. In pixels of the image as it is shown: rotated by EXIF, origin at the top left."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from vesta_contracts.common.v1 import Annotation, PixelBox

SIDE_PX_MIN = 1.0

Corners = NDArray[np.float64]
"""`(N, 4)`: x_min, y_min, x_max, y_max in pixels."""
SizePx = tuple[int, int]
"""Width and height of an image."""


def image_size(path: Path) -> SizePx:
    """Returns the size of an image file from its header.

    Raises:
        OSError: the file is not an image.
    """
    with Image.open(path) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) >= 5  # orientations that exchange the axes
    return (height, width) if turned else (width, height)


def open_image(path: Path) -> Image.Image:
    """Returns the pixels of an image file as they are shown, in RGB."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def clipped(concept: str, corners_px: Sequence[float], size_px: SizePx) -> Annotation | None:
    """Returns the part of a box within the image; None if nothing is left, or if the box is inverted."""
    width, height = size_px
    x_min, y_min, x_max, y_max = np.clip(corners_px, 0, (width, height, width, height)).tolist()
    if x_max - x_min < SIDE_PX_MIN or y_max - y_min < SIDE_PX_MIN:
        return None
    return Annotation(concept=concept, box=PixelBox(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max))


def corners(annotations: Sequence[Annotation]) -> Corners:
    """Returns the corners of box annotations."""
    rows = [(a.box.x_min_px, a.box.y_min_px, a.box.x_max_px, a.box.y_max_px) for a in annotations]
    return np.array(rows, np.float64).reshape(-1, 4)


def iou(one: Corners, other: Corners) -> NDArray[np.float64]:
    """Returns `(N, M)` intersections over unions in [0, 1]; 0 where either box is empty."""
    low, high = np.maximum(one[:, None, :2], other[None, :, :2]), np.minimum(one[:, None, 2:], other[None, :, 2:])
    intersection = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - intersection
    shares: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return shares

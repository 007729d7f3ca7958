"""Augmented views of an image and its boxes, drawn from the hash of the image, so that their features can be cached.

The functions of `torchvision.transforms.v2` transform images and boxes alike. Its random transforms draw from torch's global generator,
which threads share; the parameters are drawn here instead.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vesta_training.example import Array, Pixels

if TYPE_CHECKING:
    import torch

SOURCE_SCALE = 1.6
"""Images are loaded at so many times the side of the input, so that an enlarged part is sharp."""
ASPECT_MAX = 1.2
COLOUR_CHANGE_MAX = 0.3
GREY = 128
# A box is kept if so much of its area is in the view. A smaller part often cannot be recognised.
VISIBLE_MIN = 0.4
SIDE_PX_MIN = 2.0
VERSION = 1
"""Changes whenever views of the same image change, to invalidate cached features."""


@dataclass(frozen=True, slots=True)
class ViewChoices:
    """The range of augmentation; see the recipe."""

    zoom_min: float
    zoom_max: float
    flip: bool


@dataclass(frozen=True, slots=True)
class View:
    """A view. View 0 of an image is the whole image, unchanged.

    Attributes:
        window: x_min, y_min, x_max, y_max of the part of the image, as shares of its sides; it can exceed the image.
        colours: factors of brightness, contrast and saturation.
    """

    window: tuple[float, float, float, float]
    flipped: bool
    colours: tuple[float, float, float]

    @property
    def is_whole(self) -> bool:
        """Whether the view is the image itself."""
        return self == WHOLE


WHOLE = View((0.0, 0.0, 1.0, 1.0), flipped=False, colours=(1.0, 1.0, 1.0))


def draw_view(image_sha256: str, number: int, choices: ViewChoices) -> View:
    """Returns view `number` of an image. Equal images have equal views."""
    if number == 0:
        return WHOLE
    generator = np.random.default_rng([VERSION, number, int(image_sha256[:16], 16)])
    zoom = np.exp(generator.uniform(np.log(choices.zoom_min), np.log(choices.zoom_max)))
    aspect = np.exp(generator.uniform(-np.log(ASPECT_MAX), np.log(ASPECT_MAX)) / 2)
    sides = np.array([aspect / zoom, 1 / aspect / zoom])
    # A part of the image is anywhere in it; an image that is smaller than the view is anywhere in the view.
    start = generator.uniform(0, 1, 2) * (1 - sides)
    window = (*(float(value) for value in start), *(float(value) for value in start + sides))
    flipped = bool(choices.flip and generator.random() < 0.5)
    colours = tuple(float(value) for value in generator.uniform(1 - COLOUR_CHANGE_MAX, 1 + COLOUR_CHANGE_MAX, 3))
    return View(window, flipped, colours)  # type: ignore[arg-type]


def view_pixels(pixels: Pixels, view: View, side_px: int) -> Pixels:
    """Returns the pixels of a view.

    Args:
        pixels: `(S, S, 3)` of the image, stretched to a square.

    Returns:
        `(side_px, side_px, 3)`.
    """
    import torch

    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    image = recoloured(placed(image, view, side_px), view)
    content: Pixels = image.permute(1, 2, 0).contiguous().numpy()
    return content


def placed(image: "torch.Tensor", view: View, side_px: int) -> "torch.Tensor":
    """Returns what is in a view, `(…, side_px, side_px)`.

    Args:
        image: an image `(C, S, S)`, or its boxes as `torchvision.tv_tensors.BoundingBoxes`, which become those in the view, clipped.
    """
    from torchvision.transforms.v2 import functional

    if not view.is_whole:
        image = _part(image, view.window)
    image = functional.resize(image, [side_px, side_px], antialias=True)
    return functional.horizontal_flip(image) if view.flipped else image


def recoloured(image: "torch.Tensor", view: View) -> "torch.Tensor":
    """Returns an image `(3, H, W)` in the colours of a view."""
    from torchvision.transforms.v2 import functional

    if view.is_whole:
        return image
    brightness, contrast, saturation = view.colours
    image = functional.adjust_brightness(image, brightness)
    image = functional.adjust_contrast(image, contrast)
    answer: torch.Tensor = functional.adjust_saturation(image, saturation)
    return answer


def view_boxes(boxes: Array, view: View, side_px: int) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Returns the boxes in a view.

    Args:
        boxes: `(M, 4)`, shares of the sides of the image.

    Returns:
        `(M, 4)`, clipped, as shares of the sides of the view; and `(M,)`, whether enough of the box is visible.
    """
    low, high = np.array(view.window[:2] * 2), np.array(view.window[2:] * 2)
    moved = (boxes - low) / (high - low)
    if view.flipped:
        moved = moved[:, [2, 1, 0, 3]]
        moved[:, [0, 2]] = 1 - moved[:, [0, 2]]
    clipped = moved.clip(0, 1)
    sides = clipped[:, 2:] - clipped[:, :2]
    area = (moved[:, 2:] - moved[:, :2]).prod(axis=1)
    visible = (sides.prod(axis=1) >= VISIBLE_MIN * area) & (sides * side_px >= SIDE_PX_MIN).all(axis=1)
    return clipped.astype(np.float32), visible | view.is_whole


def view_numbers(numbers: npt.NDArray[np.uint8], view: View, side_px: int) -> npt.NDArray[np.uint8]:
    """Returns the numbers of the concepts of the pixels in a view, `(side_px, side_px)`; 0 outside of the image.

    Args:
        numbers: `(S, S)` of the image, stretched to a square.
    """
    content: npt.NDArray[np.uint8] = view_masks(numbers[None], view, side_px)[0]
    return content


def view_masks(masks: npt.NDArray[np.uint8], view: View, side_px: int) -> npt.NDArray[np.uint8]:
    """Returns masks in a view, `(M, side_px, side_px)`; 0 outside of the image.

    Args:
        masks: `(M, S, S)` of the image, stretched to a square.
    """
    import torch
    from torchvision.transforms.v2 import InterpolationMode, functional

    moved = torch.from_numpy(masks)
    if not view.is_whole:
        moved = _part(moved, view.window, outside=0)
    moved = functional.resize(moved, [side_px, side_px], interpolation=InterpolationMode.NEAREST_EXACT)
    if view.flipped:
        moved = functional.horizontal_flip(moved)
    content: npt.NDArray[np.uint8] = moved.contiguous().numpy()
    return content


def _part(image: "torch.Tensor", window: tuple[float, float, float, float], outside: int = GREY) -> "torch.Tensor":
    """Cuts a window out of an image `(C, S, S)`, or out of its boxes.

    Args:
        outside: the value of pixels outside of the image.
    """
    from torchvision.transforms.v2 import functional

    side, _ = functional.get_size(image)
    left, top, right, bottom = (round(value * side) for value in window)
    padding = [max(0, -left), max(0, -top), max(0, right - side), max(0, bottom - side)]
    padded = functional.pad(image, padding, fill=outside)
    part: torch.Tensor = functional.crop(
        padded, top + padding[1], left + padding[0], max(1, bottom - top), max(1, right - left)
    )
    return part

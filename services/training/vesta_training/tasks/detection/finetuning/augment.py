"""Augmented images with their boxes, transformed together with `torchvision.transforms.v2`: zoom, shift, flip and colours."""

import numpy as np
import torch
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, Image

from vesta_training.example import Array, Pixels
from vesta_training.metrics.predictions import Labels
from vesta_training.tasks.detection.boxed_view import BoxedView
from vesta_training.tasks.views.views import SIDE_PX_MIN, VISIBLE_MIN, View, placed, recoloured


def augment(
    pixels: Pixels, boxes: Array, numbers: "np.typing.NDArray[np.int64]", is_crowd: Labels, view: View, side_px: int
) -> tuple[torch.Tensor, BoxedView]:
    """Returns the view of an image, `(3, side_px, side_px)` uint8, with its boxes. Boxes of which too little is visible are left out.

    Args:
        pixels: `(S, S, 3)`.
        boxes: `(M, 4)`, as shares of the sides of the pixels.
        numbers: `(M,)`, of the concepts of the boxes.
        is_crowd: `(M,)`, which boxes are crowds.
    """
    side = pixels.shape[0]
    image = Image(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
    all_boxes = BoundingBoxes(torch.from_numpy(boxes) * side, format=BoundingBoxFormat.XYXY, canvas_size=(side, side))
    seen = recoloured(placed(image, view, side_px), view).as_subclass(torch.Tensor)
    clipped: Array = (placed(all_boxes, view, side_px).as_subclass(torch.Tensor) / side_px).numpy()
    sides = clipped[:, 2:] - clipped[:, :2]
    x_min, y_min, x_max, y_max = view.window
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) / ((x_max - x_min) * (y_max - y_min))
    visible = (sides.prod(axis=1) >= VISIBLE_MIN * area) & (sides * side_px >= SIDE_PX_MIN).all(axis=1)
    kept = (visible | view.is_whole) & ~is_crowd
    return seen, BoxedView("", clipped[kept], numbers[kept], crowds=clipped[is_crowd & (sides > 0).all(axis=1)])

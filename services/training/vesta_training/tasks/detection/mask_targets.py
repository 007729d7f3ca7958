"""What a mask head has to predict for the objects in a view: boxes like those that a detector finds, and the masks in their frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from vesta_common.media.mask_runs import Edges, bounds_of

from vesta_training.example import Array
from vesta_training.tasks.views.views import SOURCE_SCALE, View, view_masks

MASK_SIDE = 28
SHIFT_MAX, LOG_SCALE_MAX = 0.08, 0.15
"""How far boxes are moved, as a share of their sides, and scaled. Found boxes of objects with an IoU of 0.7 differ as much."""
OBJECTS_AT_ONCE = 50
"""Objects whose masks are rasterised together, which limits the memory."""
HALF = 0.5


@dataclass(frozen=True, slots=True)
class MaskTargets:
    """Boxes `(R, 4)` as shares of the sides of a view, their masks `(R, 28, 28)`, and the numbers `(R,)` of their concepts."""

    boxes: Array
    masks: npt.NDArray[np.bool_]
    numbers: npt.NDArray[np.int64]


def mask_targets(
    masks: Sequence[Edges],
    image_hw: tuple[int, int],
    boxes: Array,
    numbers: npt.NDArray[np.int64],
    view: View,
    side_px: int,
    generator: np.random.Generator,
) -> MaskTargets:
    """Returns the targets of objects in a view, whose boxes are moved at random.

    Args:
        masks: R masks on the image.
        image_hw: height and width of the image.
        boxes: `(R, 4)` in the view.
        side_px: of the view.
    """
    moved = _moved(boxes, generator)
    parts = [np.zeros((0, MASK_SIDE, MASK_SIDE), np.bool_)]
    for start in range(0, len(masks), OBJECTS_AT_ONCE):
        end = start + OBJECTS_AT_ONCE
        source = _rasterised(masks[start:end], image_hw, round(SOURCE_SCALE * side_px))
        parts.append(_in_boxes(view_masks(source, view, side_px), moved[start:end]))
    return MaskTargets(moved, np.concatenate(parts), numbers)


def _moved(boxes: Array, generator: np.random.Generator) -> Array:
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    centres = centres + sides * generator.uniform(-SHIFT_MAX, SHIFT_MAX, centres.shape)
    halves = sides * np.exp(generator.uniform(-LOG_SCALE_MAX, LOG_SCALE_MAX, sides.shape)) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1).clip(0, 1).astype(np.float32)


def _rasterised(masks: Sequence[Edges], image_hw: tuple[int, int], side_px: int) -> npt.NDArray[np.uint8]:
    """Returns `(R, side_px, side_px)`, 1 inside, of an image that is stretched to a square, by the nearest pixels."""
    height, width = image_hw
    rows, columns = ((np.arange(side_px) + 0.5) * size // side_px for size in (height, width))
    positions = (rows[:, None] * width + columns).astype(np.int64)
    pixels = np.zeros((len(masks), side_px, side_px), np.uint8)
    for index, edges in enumerate(masks):
        x_min, y_min, x_max, y_max = bounds_of(edges, width)
        across, down = (columns >= x_min) & (columns < x_max), (rows >= y_min) & (rows < y_max)
        # A pixel is inside if an odd number of edges is before it.
        inside = np.searchsorted(edges, positions[np.ix_(down, across)], side="right") % 2
        pixels[index][np.ix_(down, across)] = inside
    return pixels


def _in_boxes(pixels: npt.NDArray[np.uint8], boxes: Array) -> npt.NDArray[np.bool_]:
    """Returns masks `(R, S, S)` in the frames of boxes, `(R, 28, 28)`."""
    import torch
    from torchvision.ops import roi_align

    images = torch.arange(len(boxes), dtype=torch.float32)[:, None]
    places = torch.cat([images, torch.from_numpy(boxes) * pixels.shape[1]], dim=1)
    shares = roi_align(torch.from_numpy(pixels)[:, None].float(), places, MASK_SIDE, 1.0, 2, aligned=True)
    inside: npt.NDArray[np.bool_] = (shares[:, 0] >= HALF).numpy()
    return inside

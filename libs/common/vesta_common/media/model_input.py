"""How images become the input of models, and where the input lies on the image. Pure."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vesta_common.media.image_formats import image_error

Box = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max."""
Resize = Literal["stretch", "letterbox", "crop"]
ColourOrder = Literal["RGB", "BGR"]


@dataclass(frozen=True)
class InputFormat:
    """The form in which a model receives images: `(height, width, 3)` uint8.

    Attributes:
        resize: `stretch`, both sides are scaled independently; `letterbox`, the image is scaled until it fits, in the centre of a grey
            area; `crop`, it is scaled until it covers the area, and cut to its centre.
        colour_order: of the last axis.
    """

    height_px: int
    width_px: int
    resize: Resize = "stretch"
    colour_order: ColourOrder = "RGB"


SQUARE = InputFormat(256, 256)
"""The input of models on embeddings of whole images, and of models that declare none."""


@dataclass(frozen=True)
class Placement:
    """Where the input of a model lies on an image.

    Attributes:
        shown: the part of the image that the input shows, in pixels of the image.
        target: left, top, width and height of this part in the input, in pixels of the input.
        area: the part of the image that was to be predicted: a region, or all of it. Predictions are clipped to it.
        image_hw: height and width of the image.
    """

    shown: Box
    target: tuple[int, int, int, int]
    area: Box
    image_hw: tuple[int, int]

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Pixels of the input per pixel of the image, horizontally and vertically."""
        x_min, y_min, x_max, y_max = self.shown
        _, _, width, height = self.target
        return width / (x_max - x_min), height / (y_max - y_min)

    def on_image(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float64]:
        """Returns boxes in pixels of the image, clipped to `area`.

        Args:
            boxes_xyxy: `(N, 4)` in pixels of the input.
        """
        x_min, y_min, x_max, y_max = self.area
        return np.clip(self.around_image(boxes_xyxy), (x_min, y_min, x_min, y_min), (x_max, y_max, x_max, y_max))

    def around_image(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float64]:
        """Returns boxes in pixels of the image, which can exceed it.

        Args:
            boxes_xyxy: `(N, 4)` in pixels of the input.
        """
        left, top, _, _ = self.target
        origin = np.array(self.shown[:2] * 2)
        moved: NDArray[np.float64] = origin + (boxes_xyxy.astype(np.float64) - (left, top, left, top)) / (
            self.scale_xy * 2
        )
        return moved


UNREAD = Placement((0.0, 0.0, 1.0, 1.0), (0, 0, 1, 1), (0.0, 0.0, 1.0, 1.0), (1, 1))
"""Of an image that is predicted from its stored embedding, without its pixels."""


def place(declared: InputFormat, width_px: int, height_px: int, region: Box | None = None) -> Placement:
    """Places a model's input on an image.

    Args:
        width_px, height_px: of the image.
        region: the part of the image to predict, in pixels of the image; all of it if None.

    Raises:
        InvalidArgument: REGION_INVALID, the region is not in the image.
    """
    x_min, y_min, x_max, y_max = area = region or (0.0, 0.0, float(width_px), float(height_px))
    if not (min(x_min, y_min) >= 0 and x_min + 1 <= x_max <= width_px and y_min + 1 <= y_max <= height_px):
        raise image_error(
            "REGION_INVALID",
            f"the region {x_min:g}, {y_min:g} to {x_max:g}, {y_max:g} is not a part of the image of {width_px} × {height_px} "
            "pixels; clip it to the image, and make both sides at least one pixel long",
            width_px=width_px,
            height_px=height_px,
        )
    shown: Box = area
    left, top, width, height = 0, 0, declared.width_px, declared.height_px
    ratio_x, ratio_y = declared.width_px / (x_max - x_min), declared.height_px / (y_max - y_min)
    match declared.resize:
        case "letterbox":
            scale = min(ratio_x, ratio_y)
            width, height = max(1, round((x_max - x_min) * scale)), max(1, round((y_max - y_min) * scale))
            left, top = (declared.width_px - width) // 2, (declared.height_px - height) // 2
        case "crop":
            scale = max(ratio_x, ratio_y)
            half_x, half_y = declared.width_px / scale / 2, declared.height_px / scale / 2
            centre_x, centre_y = (x_min + x_max) / 2, (y_min + y_max) / 2
            shown = (
                max(x_min, centre_x - half_x),
                max(y_min, centre_y - half_y),
                min(x_max, centre_x + half_x),
                min(y_max, centre_y + half_y),
            )
    return Placement(shown, (left, top, width, height), area, (height_px, width_px))

"""Scales images, or regions of them, to the input of a model.

All functions are pure and thread-safe. Decode untrusted bytes in a child process: `vesta_common.sandbox`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vesta_common.errors import InvalidArgument
from vesta_common.media.colours import on_white, profile_of, to_srgb
from vesta_common.media.decoding import decoding_error, load_image, open_image, reduce_scale
from vesta_common.media.encoding import padded, resized
from vesta_common.media.exif import exif_of, is_sideways, upright
from vesta_common.media.image_formats import ImageFile, split_file
from vesta_common.media.model_input import SQUARE, Box, InputFormat, Placement, place

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ModelPicture:
    """A model input.

    Attributes:
        pixels: `(height, width, 3)` in the declared order of colours.
        placement: where the input lies on the image.
    """

    pixels: Pixels
    placement: Placement


def model_pixels(data: bytes | memoryview, declared: InputFormat = SQUARE) -> Pixels:
    """Returns the model input for an image file, `(height, width, 3)`. Transparency is white.

    Training, serving and Triton all use this function or `model_pictures`, for original and for normalised images. A JPEG is decoded at the
    smallest sufficient scale.

    Raises:
        InvalidArgument: as `vesta_common.media.images.normalise`.
    """
    return model_picture(data, declared).pixels


def model_picture(data: bytes | memoryview, declared: InputFormat = SQUARE, region: Box | None = None) -> ModelPicture:
    """Returns the model input for an image file or a region of it, and its place on the image.

    Args:
        region: the part of the image to predict, in pixels of the upright image; all of it if None.

    Raises:
        InvalidArgument: as `model_pixels`; REGION_INVALID, the region is not in the image.
    """
    (answer,) = model_pictures(data, declared, [region])
    if isinstance(answer, InvalidArgument):
        raise answer
    return answer


def model_pictures(
    data: bytes | memoryview, declared: InputFormat, regions: Sequence[Box | None]
) -> list[ModelPicture | InvalidArgument]:
    """Returns the model input for each region of an image file, or the error REGION_INVALID. The file is decoded once per scale.

    Args:
        regions: as the region of `model_picture`.

    Raises:
        InvalidArgument: as `model_pixels`.
    """
    file = split_file(data)
    try:
        image = _Upright(file)
        return [
            one if isinstance(one, InvalidArgument) else ModelPicture(_pixels(image, declared, one), one)
            for one in (_placement(image, declared, region) for region in regions)
        ]
    except Exception as error:
        raise decoding_error(error) from error


class _Upright:
    """An image, upright, whose pixels are decoded at the scales at which they are needed.

    Attributes:
        size: width and height in pixels.
    """

    def __init__(self, file: ImageFile) -> None:
        image = open_image(file)
        self._file = file
        self._opened = [image]
        self._exif = exif_of(file, image)
        self._is_sideways = is_sideways(self._exif, file.header.format)
        self.size = _exchanged(image.size) if self._is_sideways else image.size
        self._decoded: dict[tuple[int, int], tuple[Image.Image, bytes]] = {}

    def decoded(self, size_px_min: tuple[int, int]) -> tuple[Image.Image, bytes]:
        """Returns the image at a scale where it is not smaller than this size, and its colour profile."""
        image = self._opened.pop() if self._opened else open_image(self._file)
        reduce_scale(image, _exchanged(size_px_min) if self._is_sideways else size_px_min)
        size = image.size
        if size not in self._decoded:
            shown = upright(on_white(load_image(image)), self._exif, self._file.header.format)
            self._decoded[size] = shown, profile_of(self._file, image)
        return self._decoded[size]


def _placement(image: _Upright, declared: InputFormat, region: Box | None) -> Placement | InvalidArgument:
    try:
        return place(declared, *image.size, region)
    except InvalidArgument as error:
        return error


def _pixels(image: _Upright, declared: InputFormat, placement: Placement) -> Pixels:
    (width_px, height_px), (scale_x, scale_y) = image.size, placement.scale_xy
    shown, profile = image.decoded((round(width_px * scale_x), round(height_px * scale_y)))
    across, down = shown.width / width_px, shown.height / height_px
    x_min, y_min, x_max, y_max = placement.shown
    part = (x_min * across, y_min * down, x_max * across, y_max * down)
    left, top, width, height = placement.target
    picture = to_srgb(resized(shown, (width, height), part), profile).convert("RGB")
    pixels = np.asarray(padded(picture, (declared.width_px, declared.height_px), (left, top)))
    return pixels if declared.colour_order == "RGB" else np.ascontiguousarray(pixels[..., ::-1])


def _exchanged(size: tuple[int, int]) -> tuple[int, int]:
    return size[1], size[0]

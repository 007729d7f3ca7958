"""Random crops and mirrorings of a batch, so that fine-tuning sees no image twice the same."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ASPECT_MIN, ASPECT_MAX = 3 / 4, 4 / 3


def draw_crops(count: int, area_min: float, *, flip: bool, generator: "torch.Generator") -> "torch.Tensor":
    """A random part of each of `count` images, of at least `area_min` of its area; mirrored every other time if asked.

    Args:
        generator: on the CPU; equal states give equal crops.

    Returns:
        `(count, 2, 3)`: from the crop to the image, both in [-1, 1].
    """
    import torch

    def uniform(low: float, high: float) -> "torch.Tensor":
        return torch.rand(count, generator=generator) * (high - low) + low

    area, aspect = uniform(area_min, 1.0), torch.exp(uniform(0, 1) * torch.tensor(ASPECT_MAX / ASPECT_MIN).log())
    aspect = aspect * ASPECT_MIN
    width, height = (area * aspect).sqrt().clamp(max=1.0), (area / aspect).sqrt().clamp(max=1.0)
    side = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0) if flip else torch.ones(count)
    crops = torch.zeros(count, 2, 3)
    crops[:, 0, 0] = width * side
    crops[:, 1, 1] = height
    crops[:, 0, 2] = uniform(-1, 1) * (1 - width)
    crops[:, 1, 2] = uniform(-1, 1) * (1 - height)
    return crops


def crop(images: "torch.Tensor", crops: "torch.Tensor", size_px: int) -> "torch.Tensor":
    """The part of each image that `draw_crops` drew, resized.

    Args:
        images: `(N, 3, H, W)` float.
        crops: `(N, 2, 3)`.

    Returns:
        `(N, 3, size_px, size_px)`, on the device of the images.
    """
    import torch

    grid = torch.nn.functional.affine_grid(
        crops.to(images.device), [len(images), images.shape[1], size_px, size_px], align_corners=False
    )
    return torch.nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

"""Data augmentation for fine-tuning: random crops and horizontal flips."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ASPECT_MIN, ASPECT_MAX = 3 / 4, 4 / 3


def draw_crops(count: int, area_min: float, *, flip: bool, generator: "torch.Generator") -> "torch.Tensor":
    """Draws a random crop for each of `count` images.

    Args:
        area_min: minimum area of a crop, as a share of the area of the image.
        flip: whether to flip half of the crops horizontally.
        generator: on the CPU; equal states give equal crops.

    Returns:
        `(count, 2, 3)`, the affine transformations from the crop to the image, both in [-1, 1].
    """
    import torch

    def uniform(low: float, high: float) -> "torch.Tensor":
        return torch.rand(count, generator=generator) * (high - low) + low

    area, aspect = uniform(area_min, 1.0), torch.exp(uniform(0, 1) * torch.tensor(ASPECT_MAX / ASPECT_MIN).log())
    aspect = aspect * ASPECT_MIN
    width, height = (area * aspect).sqrt().clamp(max=1.0), (area / aspect).sqrt().clamp(max=1.0)
    sign = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0) if flip else torch.ones(count)
    crops = torch.zeros(count, 2, 3)
    crops[:, 0, 0] = width * sign
    crops[:, 1, 1] = height
    crops[:, 0, 2] = uniform(-1, 1) * (1 - width)
    crops[:, 1, 2] = uniform(-1, 1) * (1 - height)
    return crops


def crop(images: "torch.Tensor", crops: "torch.Tensor", size_px: int) -> "torch.Tensor":
    """Crops and resizes images.

    Args:
        images: `(N, 3, H, W)` float.
        crops: `(N, 2, 3)`, from `draw_crops`.

    Returns:
        `(N, 3, size_px, size_px)`, on the device of the images.
    """
    import torch

    grid = torch.nn.functional.affine_grid(
        crops.to(images.device), [len(images), images.shape[1], size_px, size_px], align_corners=False
    )
    return torch.nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

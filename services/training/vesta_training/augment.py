"""Random crops and mirrorings of a batch, so that fine-tuning sees no image twice the same."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ASPECT_MIN, ASPECT_MAX = 3 / 4, 4 / 3


def crop_and_flip(
    images: "torch.Tensor", size_px: int, area_min: float, *, flip: bool, generator: "torch.Generator"
) -> "torch.Tensor":
    """A random part of each image, of at least `area_min` of its area, resized; mirrored every other time if asked.

    Args:
        images: `(N, 3, H, W)` float.
        generator: on the CPU, whatever the images lie on; equal states give equal crops.

    Returns:
        `(N, 3, size_px, size_px)`, on the same device.
    """
    import torch

    count = len(images)

    def uniform(low: float, high: float) -> "torch.Tensor":
        return torch.rand(count, generator=generator) * (high - low) + low

    area, aspect = uniform(area_min, 1.0), torch.exp(uniform(0, 1) * torch.tensor(ASPECT_MAX / ASPECT_MIN).log())
    aspect = aspect * ASPECT_MIN
    width, height = (area * aspect).sqrt().clamp(max=1.0), (area / aspect).sqrt().clamp(max=1.0)
    side = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0) if flip else torch.ones(count)
    transform = torch.zeros(count, 2, 3)
    transform[:, 0, 0] = width * side
    transform[:, 1, 1] = height
    transform[:, 0, 2] = uniform(-1, 1) * (1 - width)
    transform[:, 1, 2] = uniform(-1, 1) * (1 - height)
    grid = torch.nn.functional.affine_grid(
        transform.to(images.device), [count, images.shape[1], size_px, size_px], align_corners=False
    )
    return torch.nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

"""What the epochs of fine-tunings have in common: the batches, of which each process computes a part, and the sums over processes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vesta_training.errors import LearningError
from vesta_training.tasks.group import Group, Positions, share

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a batch that this process computes.

    Attributes:
        images: numbers of its images.
        positions: of these images in the batch.
        weight: of its loss, see `share`.
        batch_size: the number of images in the whole batch.
    """

    images: Positions
    positions: Positions
    weight: float
    batch_size: int


def epoch_generator(seed: int, epoch: int) -> "torch.Generator":
    """Returns the random generator of an epoch."""
    import torch

    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def epoch_parts(image_count: int, batch_count: int, generator: "torch.Generator", group: Group) -> list[Part]:
    """Returns a part of each batch. The images are in random order."""
    import torch

    batches = np.array_split(torch.randperm(image_count, generator=generator).numpy(), batch_count)
    own = [share(group, len(batch)) for batch in batches]
    return [
        Part(batch[positions], positions, weight, len(batch))
        for batch, (positions, weight) in zip(batches, own, strict=True)
    ]


def sum_gradients(parameters: "Sequence[torch.Tensor]", loss: "torch.Tensor", group: Group, epoch: int) -> float:
    """Adds up gradients and loss over all processes, in place, and returns the sum of the loss.

    Args:
        epoch: from 0.

    Raises:
        LearningError: the loss is not finite.
    """
    total = loss.detach()
    group.sum([*(one.grad for one in parameters if one.grad is not None), total])
    value = float(total)
    if not math.isfinite(value):
        raise LearningError(f"the loss became {value} in epoch {epoch + 1}; use a smaller learning_rate")
    return value

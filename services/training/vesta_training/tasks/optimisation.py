"""The schedule of the learning rate, and the moving average of weights, of trainings with torch."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

GRADIENT_NORM_MAX = 5.0
AVERAGE_DECAY_MAX = 0.998


def warm_cosine(steps: int, warmup_share: float) -> Callable[[int], float]:
    """Returns the learning rate schedule, as a factor by step: linear warm-up, then cosine decay to 0."""
    warm = max(1, round(steps * warmup_share))

    def share(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return share


def follow(average: "torch.nn.Module", module: "torch.nn.Module", step: int) -> None:
    """Moves the average of the weights of a module towards them, by less with each step. Counts are copied.

    Args:
        step: from 0.
    """
    import torch

    decay = min(AVERAGE_DECAY_MAX, (1 + step) / (10 + step))
    with torch.no_grad():
        for own, new in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
            if own.dtype.is_floating_point:
                own.lerp_(new, 1 - decay)
            else:
                own.copy_(new)

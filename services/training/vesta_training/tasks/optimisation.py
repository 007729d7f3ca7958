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


class MovingAverage:
    """The moving average of the weights of a module. Later changes of both must be in place.

    Args:
        average: a copy of the module, which takes the average.
    """

    def __init__(self, average: "torch.nn.Module", module: "torch.nn.Module") -> None:
        pairs = list(zip(average.state_dict().values(), module.state_dict().values(), strict=True))
        self._weights = [pair for pair in pairs if pair[0].dtype.is_floating_point]
        self._counts = [pair for pair in pairs if not pair[0].dtype.is_floating_point]

    def follow(self, step: int) -> None:
        """Moves the average towards the weights, by less with each step. Counts are copied.

        Args:
            step: from 0.
        """
        import torch
        from torch.optim.swa_utils import get_ema_multi_avg_fn

        decay = min(AVERAGE_DECAY_MAX, (1 + step) / (10 + step))
        move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            move(*map(list, zip(*self._weights, strict=True)), None)
            for own, new in self._counts:
                own.copy_(new)

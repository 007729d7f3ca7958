"""Mixed precision of a training on a GPU (Micikevicius et al., arXiv 1710.03740)."""

from typing import Any

import torch

from vesta_training.hardware import CUDA


class Precision:
    """Computes with 16 bits where that suffices. The weights, their gradients and the loss have 32 bits.

    Args:
        kind: float16, with scaled gradients, bfloat16 or float32.

    Attributes:
        name: of the kind.
    """

    def __init__(self, device: str, kind: torch.dtype) -> None:
        self.name = str(kind).removeprefix("torch.")
        self._kind = kind
        self._device = device
        self._scaler = torch.amp.GradScaler(device, enabled=kind is torch.float16)

    def autocast(self) -> torch.autocast:
        """Returns the context in which the network computes."""
        enabled = self._kind is not torch.float32
        return torch.autocast(self._device, dtype=self._kind if enabled else None, enabled=enabled)

    def backward(self, loss: torch.Tensor) -> None:
        """Computes the gradients, scaled so that small ones are not lost."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], norm_max: float) -> None:
        """Limits the norm of the gradients, and takes the step, unless they have overflowed."""
        self._scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, norm_max)
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint needs."""
        return self._scaler.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Continues from a checkpoint."""
        self._scaler.load_state_dict(state)


def precision_of(device: str, *, mixed: bool) -> Precision:
    """Returns the precision for a device: bfloat16 on GPUs that have it, float16 on others, and float32 on CPUs.

    Args:
        mixed: whether the recipe allows 16 bits.
    """
    if not mixed or device != CUDA:
        return Precision(device, torch.float32)
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Precision(device, torch.bfloat16 if has_bfloat16 else torch.float16)

"""Mixed precision of a training on a GPU (Micikevicius et al., arXiv 1710.03740)."""

from typing import Any

import torch

from vesta_training.hardware import CUDA


class Precision:
    """Computes with 16 bits where that suffices. The weights, their gradients and the loss have 32 bits.

    Attributes:
        kind: `bfloat16`; `float16` on GPUs without it, with scaled gradients; or `float32`.
    """

    def __init__(self, device: str, *, mixed: bool) -> None:
        kind = torch.float32
        if mixed and device == CUDA:
            kind = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        self.kind = str(kind).removeprefix("torch.")
        self._type = kind
        self._device = device
        self._scaler = torch.amp.GradScaler(device, enabled=kind is torch.float16)

    def autocast(self) -> torch.autocast:
        """Returns the context in which the network computes."""
        enabled = self._type is not torch.float32
        return torch.autocast(self._device, dtype=self._type if enabled else None, enabled=enabled)

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

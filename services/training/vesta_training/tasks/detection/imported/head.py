"""The class head of an imported detector. Boxes are those of its frozen network."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from vesta_training.example import Array
from vesta_training.features.onnx_graph import STRIDES

BOX_VALUES = 4
LOG_SIDE_MAX = 8.0
"""Limits the logarithms of sides, in strides."""
PRIOR = 0.01
"""The probability that a cell has an object of a concept, before anything is learned."""


class ImportedHead(nn.Module):
    """Predicts the concepts of each cell, from the features, the objectness and the known classes of the network.

    The logit of a concept is a linear function of the known classes and the objectness, shared by all strides, so that concepts that the
    network knows are learned from few labels; plus a small network on the features of each stride.

    Args:
        known: weights `(K, F)` and biases `(K,)` by which the network predicts its own classes, by stride.
        side_px: of the input of the network.
        width: hidden channels.
        concept_count: C.
    """

    def __init__(self, known: Sequence[tuple[Array, Array]], side_px: int, width: int, concept_count: int) -> None:
        super().__init__()
        counts = [weights.shape[1] for weights, _ in known]
        self.concept_count = concept_count
        self.log_side_max = LOG_SIDE_MAX
        self.known = nn.ModuleList(_frozen(weights, biases) for weights, biases in known)
        self.shared = nn.Conv2d(known[0][0].shape[0] + 1, concept_count, 1)
        self.hidden = nn.ModuleList(nn.Conv2d(count + 1, width, 1) for count in counts)
        self.classes = nn.ModuleList(nn.Conv2d(width, concept_count, 1) for _ in counts)
        for layer in (self.shared, *self.classes):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        assert self.shared.bias is not None
        nn.init.constant_(self.shared.bias, float(np.log(PRIOR / (1 - PRIOR))))
        corners, strides = cells_of(side_px)
        self.register_buffer("corners", torch.from_numpy(corners), persistent=False)
        self.register_buffer("strides", torch.from_numpy(strides), persistent=False)

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Predicts.

        Args:
            maps: `(N, F + 5, S/stride, S/stride)` by stride: features, box and objectness.

        Returns:
            Logits `(N, A, C)`, and boxes `(N, A, 4)` as shares of the input.
        """
        logits, boxes = [], []
        for one, known, hidden, classes in zip(maps, self.known, self.hidden, self.classes, strict=True):
            count = one.shape[1] - BOX_VALUES - 1
            features, objectness = one[:, :count], one[:, count + BOX_VALUES :]
            seen = torch.cat([known(features), objectness], dim=1)
            own = torch.cat([features, objectness], dim=1)
            logits.append((self.shared(seen) + classes(nn.functional.relu6(hidden(own)))).flatten(2))
            boxes.append(one[:, count : count + BOX_VALUES].flatten(2))
        return torch.cat(logits, dim=2).transpose(1, 2), self._decoded(torch.cat(boxes, dim=2).transpose(1, 2))

    def linear(self, level: int) -> tuple[Array, Array]:
        """Returns the weights `(C, F + 1)` and biases `(C,)` of the linear part of one stride, on features and objectness."""
        known: Any = self.known[level]
        shared: Any = self.shared
        of_known, of_objectness = shared.weight.detach().double().flatten(1).split([shared.in_channels - 1, 1], dim=1)
        weights = torch.cat([of_known @ known.weight.double().flatten(1), of_objectness], dim=1)
        biases = of_known @ known.bias.double() + shared.bias.detach().double()
        return weights.float().numpy(), biases.float().numpy()

    def _decoded(self, boxes: torch.Tensor) -> torch.Tensor:
        centres = (self.corners + boxes[..., :2]) * self.strides  # type: ignore[operator]
        halves = boxes[..., 2:].clamp(max=LOG_SIDE_MAX).exp() * self.strides / 2  # type: ignore[operator]
        return torch.cat([centres - halves, centres + halves], dim=-1).clamp(0, 1)


def cells_of(side_px: int) -> tuple[Array, Array]:
    """Returns for all cells, by stride, row and column, the corners `(A, 2)` in strides, and the strides `(A, 1)` as shares of the side."""
    corners, strides = [], []
    for stride in STRIDES:
        count = side_px // stride
        y, x = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
        corners.append(np.stack([x, y], axis=2).reshape(-1, 2))
        strides.append(np.full((count * count, 1), stride / side_px))
    return np.concatenate(corners).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _frozen(weights: Array, biases: Array) -> nn.Conv2d:
    count, inputs = weights.shape
    layer = nn.Conv2d(inputs, count, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights.copy()).reshape(count, inputs, 1, 1))
        layer.bias.copy_(torch.from_numpy(biases.copy()))  # type: ignore[union-attr]
    return layer.requires_grad_(False)

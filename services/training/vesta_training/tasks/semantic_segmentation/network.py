"""The segmentation head: a feature pyramid with a gate of the whole image, over the maps of a frozen backbone.

The gate is that of LR-ASPP (Howard et al., arXiv 1905.02244). The classes of finer pixels are channels of the coarser ones, as in sub-pixel
convolution (Shi et al., arXiv 1609.05158), which is cheaper than finer maps.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.ops.misc import Conv2dNormActivation

from vesta_training.tasks.views.layers import Depthwise

FINER = 2
"""Pixels of the logits along each side of a cell of the finest maps."""


class SegmentationHead(nn.Module):
    """Predicts the class of each pixel.

    Args:
        channels: of the maps of the backbone, by stride.
        width: channels of the pyramid.
        concept_count: C; class 0 is none of the concepts.
    """

    def __init__(self, channels: Sequence[int], width: int, concept_count: int) -> None:
        super().__init__()
        self.class_count = concept_count + 1
        self.finer = FINER
        self.lateral = nn.ModuleList(
            Conv2dNormActivation(count, width, 1, activation_layer=nn.ReLU6) for count in channels
        )
        self.gate = nn.Conv2d(channels[-1], width, 1)
        self.smooth = nn.ModuleList(Depthwise(width) for _ in channels)
        self.classes = nn.Conv2d(width, self.class_count * FINER**2, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Predicts.

        Args:
            maps: `(N, channels, S/stride, S/stride)` by stride, float32.

        Returns:
            Logits `(N, C + 1, S/4, S/4)`.
        """
        gate = self.gate(maps[-1].mean((2, 3), keepdim=True)).sigmoid()
        flow = self.smooth[-1](self.lateral[-1](maps[-1]) * gate)
        for level in reversed(range(len(maps) - 1)):
            above = nn.functional.interpolate(flow, scale_factor=2, mode="nearest")
            flow = self.smooth[level](self.lateral[level](maps[level]) + above)
        logits: torch.Tensor = nn.functional.pixel_shuffle(self.classes(flow), FINER)
        return logits

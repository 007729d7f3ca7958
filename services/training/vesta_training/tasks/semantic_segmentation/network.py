"""The segmentation head: a feature pyramid with a gate of the whole image, over the maps of a frozen backbone.

The gate is that of LR-ASPP (Howard et al., arXiv 1905.02244). The finest maps have fewer channels, because they have most of the cells.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.ops.misc import Conv2dNormActivation

from vesta_training.tasks.views.layers import Depthwise


class SegmentationHead(nn.Module):
    """Predicts the class of each pixel.

    Args:
        channels: of the maps of the backbone, by stride.
        width: channels of the pyramid.
        fine_width: channels of its finest maps.
        concept_count: C; class 0 is none of the concepts.
    """

    def __init__(self, channels: Sequence[int], width: int, fine_width: int, concept_count: int) -> None:
        super().__init__()
        self.class_count = concept_count + 1
        widths = [fine_width] + [width] * (len(channels) - 1)
        self.lateral = nn.ModuleList(
            Conv2dNormActivation(count, own, 1, activation_layer=nn.ReLU6)
            for count, own in zip(channels, widths, strict=True)
        )
        self.gate = nn.Conv2d(channels[-1], width, 1)
        self.smooth = nn.ModuleList(Depthwise(own) for own in widths)
        self.narrow = Conv2dNormActivation(width, fine_width, 1, activation_layer=nn.ReLU6)
        self.classes = nn.Conv2d(fine_width, self.class_count, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Predicts.

        Args:
            maps: `(N, channels, S/stride, S/stride)` by stride, float32.

        Returns:
            Logits `(N, C + 1, S/4, S/4)`, in the cells of the finest maps.
        """
        gate = self.gate(maps[-1].mean((2, 3), keepdim=True)).sigmoid()
        flow = self.smooth[-1](self.lateral[-1](maps[-1]) * gate)
        for level in reversed(range(len(maps) - 1)):
            above = self.narrow(flow) if level == 0 else flow
            above = nn.functional.interpolate(above, scale_factor=2, mode="nearest")
            flow = self.smooth[level](self.lateral[level](maps[level]) + above)
        logits: torch.Tensor = self.classes(flow)
        return logits

"""Layers of heads on feature maps."""

import torch
from torch import nn
from torchvision.ops.misc import Conv2dNormActivation


class Depthwise(nn.Module):
    """A depthwise 3 × 3 convolution, then a pointwise one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = Conv2dNormActivation(channels, channels, 3, groups=channels, activation_layer=nn.ReLU6)
        self.pointwise = Conv2dNormActivation(channels, channels, 1, activation_layer=nn.ReLU6)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(N, channels, H, W)` → the same shape."""
        answer: torch.Tensor = self.pointwise(self.depthwise(features))
        return answer

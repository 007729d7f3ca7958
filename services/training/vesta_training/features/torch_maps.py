"""The feature maps of a backbone with torch: the network that is fine-tuned, and the reference for its graph."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vesta_training.features.onnx_graph import STRIDES


class BackboneMaps(nn.Module):
    """Computes what `onnx_graph.maps_graph` computes, from images of the size of its input.

    Args:
        backbone: an `efficientnet_lite_pytorch.EfficientNet`.
        strides: of the maps, ascending.
    """

    def __init__(self, backbone: nn.Module, strides: Sequence[int] = STRIDES) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.strides = tuple(strides)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """`(N, 3, S, S)` in [0, 255] → `(N, C, S/stride, S/stride)` by stride."""
        parts = self.backbone
        flow = nn.functional.relu6(parts._bn0(parts._conv_stem(images / 127.5 - 1)))
        maps, stride = {}, parts._conv_stem.stride[0]
        for block in parts._blocks:
            flow = block(flow)
            stride *= block._depthwise_conv.stride[0]
            maps[stride] = flow
        return [maps[stride] for stride in self.strides]

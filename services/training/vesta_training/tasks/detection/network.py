"""The detection head: a feature pyramid and SSDLite predictors over the maps of a frozen backbone.

Sources: feature pyramid networks (Lin et al., arXiv 1612.03144), SSD (Liu et al., arXiv 1512.02325), and SSDLite, which has depthwise
convolutions (Sandler et al., arXiv 1801.04381).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torchvision.ops.misc import Conv2dNormActivation

from vesta_training.features.onnx_graph import STRIDES
from vesta_training.tasks.detection.mask_head import MaskHead
from vesta_training.tasks.views.layers import Depthwise

# Scales of the predicted offsets of centre and size, as in SSD.
OFFSET_SCALES = (10.0, 10.0, 5.0, 5.0)
BACKGROUND_PRIOR = 0.99


class Predictor(nn.Module):
    """A depthwise 3 × 3 convolution, then a pointwise one without normalisation, whose bias starts as given."""

    def __init__(self, channels: int, bias: torch.Tensor) -> None:
        super().__init__()
        self.depthwise = Conv2dNormActivation(channels, channels, 3, groups=channels, activation_layer=nn.ReLU6)
        self.pointwise = nn.Conv2d(channels, len(bias), 1)
        nn.init.normal_(self.pointwise.weight, std=0.01)
        self.pointwise.bias = nn.Parameter(bias.clone())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(N, channels, H, W)` → `(N, len(bias), H, W)`."""
        answer: torch.Tensor = self.pointwise(self.depthwise(features))
        return answer


class Predicted(NamedTuple):
    """The outputs of a detection head.

    Attributes:
        logits: `(N, A, C + 1)`, in the order of `default_boxes.lay_out`; class 0 is the background.
        offsets: `(N, A, 4)`, in the same order.
        finest: `(N, width, S/8, S/8)`, the finest maps of the pyramid, from which a mask head predicts.
    """

    logits: torch.Tensor
    offsets: torch.Tensor
    finest: torch.Tensor


class DetectionHead(nn.Module):
    """Predicts a class and a box for each default box.

    Args:
        channels: of the maps of the backbone, by stride.
        width: channels of the pyramid.
        per_cell: default boxes of each cell.
        concept_count: C; class 0 is the background.
        masks: predicts the masks of boxes; None if objects are boxes.
    """

    def __init__(
        self, channels: Sequence[int], width: int, per_cell: int, concept_count: int, masks: MaskHead | None = None
    ) -> None:
        super().__init__()
        self.class_count = concept_count + 1
        self.lateral = nn.ModuleList(
            Conv2dNormActivation(count, width, 1, activation_layer=nn.ReLU6) for count in channels
        )
        self.smooth = nn.ModuleList(Depthwise(width) for _ in channels)
        background = torch.zeros(per_cell, self.class_count)
        background[:, 0] = torch.tensor(BACKGROUND_PRIOR * concept_count / (1 - BACKGROUND_PRIOR)).log()
        self.classes = nn.ModuleList(Predictor(width, background.flatten()) for _ in channels)
        self.offsets = nn.ModuleList(Predictor(width, torch.zeros(per_cell * 4)) for _ in channels)
        self.masks = masks

    def forward(self, maps: Sequence[torch.Tensor]) -> Predicted:
        """Predicts.

        Args:
            maps: `(N, channels, S/stride, S/stride)` by stride, float32.
        """
        flow: torch.Tensor | None = None
        logits, offsets = [], []
        for level in reversed(range(len(STRIDES))):
            own = self.lateral[level](maps[level])
            flow = own if flow is None else own + nn.functional.interpolate(flow, scale_factor=2, mode="nearest")
            smooth = self.smooth[level](flow)
            logits.append(_by_box(self.classes[level](smooth), self.class_count))
            offsets.append(_by_box(self.offsets[level](smooth), 4))
        return Predicted(torch.cat(logits[::-1], dim=1), torch.cat(offsets[::-1], dim=1), smooth)


def decode(offsets: torch.Tensor, defaults: torch.Tensor) -> torch.Tensor:
    """Returns `(…, A, 4)` boxes x_min, y_min, x_max, y_max from offsets `(…, A, 4)` to default boxes `(A, 4)`; see `lay_out`."""
    scaled = offsets / offsets.new_tensor(OFFSET_SCALES)
    centres = defaults[:, :2] + scaled[..., :2] * defaults[:, 2:]
    halves = defaults[:, 2:] * scaled[..., 2:].clamp(max=4.0).exp() / 2
    return torch.cat([centres - halves, centres + halves], dim=-1)


def encode(boxes: torch.Tensor, defaults: torch.Tensor) -> torch.Tensor:
    """Returns the offsets `(A, 4)` from default boxes to the boxes `(A, 4)` that each has to predict; the inverse of `decode`."""
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-4)
    moved = (centres - defaults[:, :2]) / defaults[:, 2:]
    return torch.cat([moved, (sides / defaults[:, 2:]).log()], dim=1) * boxes.new_tensor(OFFSET_SCALES)


def _by_box(predicted: torch.Tensor, values: int) -> torch.Tensor:
    """`(N, P · values, H, W)` → `(N, H · W · P, values)`."""
    count, _, height, width = predicted.shape
    return predicted.permute(0, 2, 3, 1).reshape(count, height * width * (predicted.shape[1] // values), values)

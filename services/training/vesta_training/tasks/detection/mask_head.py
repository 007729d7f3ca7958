"""The mask head of a detector: the probabilities that the parts of a box show its object (Mask R-CNN, He et al., arXiv 1703.06870).

Crops are cut from the finest maps of the pyramid for boxes of all sizes: at these input sizes the largest object has forty cells, and the
pyramid has carried the context of the coarser maps down to it. A crop has one sample per cell, at its centre, because more samples take
three times as long and the maps are smooth.
"""

import torch
from torch import nn
from torchvision.ops import roi_align

from vesta_training.tasks.views.layers import Depthwise

CROP_SIDE = 14
MASK_SIDE = 2 * CROP_SIDE
SAMPLES_PER_CELL = 1


class MaskHead(nn.Module):
    """Predicts masks from the maps of a pyramid.

    Args:
        width: channels of the pyramid.
        layers: number of depthwise convolutions of a crop.
        concept_count: number of masks of each box, C, or 1 if all concepts share one.
    """

    def __init__(self, width: int, layers: int, concept_count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Depthwise(width) for _ in range(layers))
        self.enlarge = nn.ConvTranspose2d(width, width // 2, 2, stride=2)
        self.masks = nn.Conv2d(width // 2, concept_count, 1)

    def forward(self, finest: torch.Tensor, images: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Predicts.

        Args:
            finest: `(N, width, S/8, S/8)`, of the pyramid.
            images: `(R,)`, the image of each box.
            boxes: `(R, 4)`: x_min, y_min, x_max, y_max as shares of the sides of the image.

        Returns:
            Logits `(R, C, 28, 28)`.
        """
        places = torch.cat([images.to(boxes)[:, None], boxes * finest.shape[2]], dim=1)
        flow = roi_align(finest, places, CROP_SIDE, 1.0, SAMPLES_PER_CELL, aligned=True)
        for layer in self.layers:
            flow = layer(flow)
        logits: torch.Tensor = self.masks(nn.functional.relu6(self.enlarge(flow)))
        return logits


def mask_probabilities(
    head: MaskHead, finest: torch.Tensor, images: torch.Tensor, boxes: torch.Tensor, numbers: torch.Tensor
) -> torch.Tensor:
    """Returns `(R, 28, 28)`, the probabilities of each box for its concept.

    Args:
        numbers: `(R,)` int64, of the concepts.
    """
    logits: torch.Tensor = head(finest, images, boxes)
    return _of_concepts(logits, numbers).sigmoid()


def mask_loss(logits: torch.Tensor, targets: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Returns the mean cross entropy of the masks of boxes.

    Args:
        logits: `(R, C, 28, 28)`, of a `MaskHead`.
        targets: `(R, 28, 28)` bool.
        numbers: `(R,)` int64, of the concepts.
    """
    return nn.functional.binary_cross_entropy_with_logits(_of_concepts(logits, numbers), targets.float())


def _of_concepts(logits: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """`(R, C, 28, 28)` → `(R, 28, 28)`."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[torch.arange(len(logits), device=logits.device), numbers]

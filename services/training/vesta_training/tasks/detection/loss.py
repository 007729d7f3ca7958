"""The loss of a detection head, as in SSD (Liu et al., arXiv 1512.02325): cross entropy with hard negatives, and smooth L1 of offsets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torchvision.ops import box_iou

from vesta_training.example import Array
from vesta_training.tasks.detection.mask_head import MaskHead, mask_loss
from vesta_training.tasks.detection.mask_targets import MaskTargets
from vesta_training.tasks.detection.network import Predicted, encode

# A default box must predict an object that it overlaps with this IoU, and the one that overlaps an object most must in any case.
MATCH_IOU_MIN = 0.5
NEGATIVES_PER_POSITIVE = 3
NEGATIVES_MIN = 12


@dataclass(frozen=True, slots=True)
class BoxedView:
    """A view of an image to learn from: the key of its maps, its boxes `(M, 4)`, and the numbers `(M,)` of their concepts.

    Attributes:
        masks: what the mask head has to predict; None if objects are boxes.
    """

    key: str
    boxes: Array
    numbers: npt.NDArray[np.int64]
    masks: MaskTargets | None = None


def detection_loss(outputs: Predicted, batch: Sequence[BoxedView], defaults: torch.Tensor) -> torch.Tensor:
    """Returns the loss of a batch, by the number of matched default boxes.

    Args:
        outputs: of a `DetectionHead`.
        defaults: `(A, 4)`; see `default_boxes.lay_out`.
    """
    logits, offsets = outputs.logits, outputs.offsets
    classes = torch.zeros(logits.shape[:2], dtype=torch.int64, device=logits.device)
    box_loss = offsets.new_zeros(())
    for row, view in enumerate(batch):
        if not len(view.boxes):
            continue
        boxes = torch.from_numpy(view.boxes).to(logits.device)
        matched = _match(boxes, defaults)
        positive = matched >= 0
        classes[row, positive] = torch.from_numpy(view.numbers).to(logits.device)[matched[positive]] + 1
        wanted = encode(boxes[matched[positive]], defaults[positive])
        box_loss = box_loss + nn.functional.smooth_l1_loss(offsets[row, positive], wanted, reduction="sum")
    positive = classes > 0
    entropy = nn.functional.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none").view(classes.shape)
    # Negatives with the highest loss only, because nearly all default boxes are easy background.
    mined = (NEGATIVES_PER_POSITIVE * positive.sum(dim=1, keepdim=True)).clamp(min=NEGATIVES_MIN)
    negatives = torch.where(positive, -torch.inf, entropy.detach())
    rank = negatives.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
    counted = positive | (rank < mined)
    total: torch.Tensor = (entropy[counted].sum() + box_loss) / positive.sum().clamp(min=len(batch))
    return total


def masks_loss(head: MaskHead, outputs: Predicted, batch: Sequence[BoxedView]) -> torch.Tensor:
    """Returns the loss of the masks of a batch; 0 without objects."""
    targets = [(row, view.masks) for row, view in enumerate(batch) if view.masks is not None and len(view.masks.boxes)]
    if not targets:
        return outputs.finest.new_zeros(())
    device = outputs.finest.device
    images = torch.cat([torch.full((len(one.boxes),), row) for row, one in targets]).to(device)
    boxes, masks, numbers = (
        torch.from_numpy(np.concatenate(parts)).to(device)
        for parts in zip(*((one.boxes, one.masks, one.numbers) for _, one in targets), strict=True)
    )
    return mask_loss(head(outputs.finest, images, boxes), masks, numbers)


def _match(boxes: torch.Tensor, defaults: torch.Tensor) -> torch.Tensor:
    """Returns `(A,)`, the number of the box that each default box must predict, or -1."""
    corners = torch.cat([defaults[:, :2] - defaults[:, 2:] / 2, defaults[:, :2] + defaults[:, 2:] / 2], dim=1)
    overlap: torch.Tensor = box_iou(boxes, corners)
    matched: torch.Tensor
    best, matched = overlap.max(dim=0)
    matched[best < MATCH_IOU_MIN] = -1
    matched[overlap.argmax(dim=1)] = torch.arange(len(boxes), device=boxes.device)
    return matched

"""The loss of a detection head, as in SSD (Liu et al., arXiv 1512.02325): cross entropy with hard negatives, and smooth L1 of offsets."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from vesta_training.tasks.detection.boxed_view import BoxedView
from vesta_training.tasks.detection.mask_head import MaskHead, mask_loss
from vesta_training.tasks.detection.matching import Matched, Matcher
from vesta_training.tasks.detection.network import Predicted

NEGATIVES_PER_POSITIVE = 3
NEGATIVES_MIN = 12


class LossSums(NamedTuple):
    """A loss before it is divided, so that parts of a batch can be added up: its sum, and by how many objects it is divided."""

    total: torch.Tensor
    objects: torch.Tensor

    def mean(self, image_count: int) -> torch.Tensor:
        """Returns the loss of a batch; without objects, it is divided by the number of images."""
        return self.total / self.objects.clamp(min=image_count)


def detection_loss(outputs: Predicted, batch: Sequence[BoxedView], matcher: Matcher) -> torch.Tensor:
    """Returns the loss of a batch, by the number of matched default boxes.

    Args:
        outputs: of a `DetectionHead`.
        matcher: matches its default boxes.
    """
    return detection_sums(outputs, [matcher.match(view) for view in batch]).mean(len(batch))


def detection_sums(outputs: Predicted, matched: Sequence[Matched]) -> LossSums:
    """Returns the loss of a batch, and the number of matched default boxes.

    Args:
        outputs: of a `DetectionHead`.
        matched: which default boxes have to predict the objects of each view.
    """
    logits, offsets = outputs.logits, outputs.offsets
    rows = torch.repeat_interleave(torch.tensor([len(one.cells) for one in matched])).to(logits.device)
    cells, wanted_classes, wanted_offsets, _ = (
        torch.cat(parts).to(logits.device) for parts in zip(*matched, strict=True)
    )
    classes = torch.zeros(logits.shape[:2], dtype=torch.int64, device=logits.device)
    classes[rows, cells] = wanted_classes
    box_loss = nn.functional.smooth_l1_loss(offsets[rows, cells], wanted_offsets, reduction="sum")
    with torch.no_grad():
        entropy = logits.logsumexp(dim=2) - logits.gather(2, classes[..., None])[..., 0]
    in_crowds = torch.zeros_like(classes, dtype=torch.bool)
    for row, one in enumerate(matched):
        in_crowds[row, one.in_crowds.to(logits.device)] = True
    counted = _counted(entropy, classes > 0, in_crowds)
    class_loss = nn.functional.cross_entropy(logits[counted], classes[counted], reduction="sum")
    return LossSums(class_loss + box_loss, torch.tensor(len(cells), device=logits.device))


def _counted(entropy: torch.Tensor, positive: torch.Tensor, in_crowds: torch.Tensor) -> torch.Tensor:
    """Returns which default boxes `(N, A)` count: the positives, and of the negatives those with the highest loss, because nearly all are
    easy background. Those in crowds are neither.
    """
    mined = (NEGATIVES_PER_POSITIVE * positive.sum(dim=1, keepdim=True)).clamp(min=NEGATIVES_MIN)
    hardest = (
        torch.where(positive | in_crowds, -torch.inf, entropy)
        .topk(min(int(mined.max()), entropy.shape[1]), dim=1)
        .indices
    )
    ranks = torch.arange(hardest.shape[1], device=entropy.device)
    return positive.scatter(1, hardest, positive.gather(1, hardest) | (ranks < mined)) & ~in_crowds


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

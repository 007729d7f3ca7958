"""The loss of a detector with an imported network: of its class head, and of its boxes if the network is trained.

Each object is learned by the cells whose boxes overlap it most, as many as in SimOTA (Ge et al., arXiv 2107.08430), and the score of a
cell becomes the overlap of its box, as in VarifocalNet (Zhang et al., arXiv 2008.13367).
"""

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.ops import box_iou, generalized_box_iou_loss

from vesta_training.tasks.detection.boxed_view import BoxedView
from vesta_training.tasks.detection.loss import LossSums
from vesta_training.tasks.detection.matching import in_crowds

CELLS_PER_OBJECT_MAX = 10
NEGATIVE_WEIGHT = 0.75
FOCUS = 2.0
BOX_WEIGHT = 2.0
"""Weight of the loss of boxes, relative to that of classes, as in VarifocalNet."""


def imported_loss(outputs: tuple[torch.Tensor, torch.Tensor], batch: Sequence[BoxedView]) -> torch.Tensor:
    """Returns the loss of the class head for a batch, by the sum of the wanted scores.

    Args:
        outputs: of an `ImportedHead`: logits and boxes.
    """
    return imported_sums(outputs, batch, trains_boxes=False).mean(len(batch))


def imported_sums(
    outputs: tuple[torch.Tensor, torch.Tensor], batch: Sequence[BoxedView], *, trains_boxes: bool
) -> LossSums:
    """Returns the loss of a batch, and the sum of the wanted scores.

    Args:
        outputs: of an `ImportedHead`: logits and boxes.
        trains_boxes: whether the boxes are learned too (generalized IoU, Rezatofighi et al., arXiv 1902.09630).
    """
    logits, boxes = outputs
    wanted = torch.zeros_like(logits)
    box_loss = logits.new_zeros(())
    for row, view in enumerate(batch):
        if len(view.boxes):
            objects = torch.from_numpy(view.boxes).to(logits.device)
            numbers = torch.from_numpy(view.numbers).to(logits.device)
            overlap = box_iou(objects, boxes[row].detach())
            _add_wanted(wanted[row], overlap, numbers)
            if trains_boxes:
                cells = wanted[row].amax(dim=1).nonzero(as_tuple=True)[0]
                apart = generalized_box_iou_loss(boxes[row][cells], objects[overlap.argmax(dim=0)[cells]])
                box_loss = box_loss + (apart * wanted[row].amax(dim=1)[cells]).sum()
    is_positive = wanted > 0
    is_negative = ~torch.stack([in_crowds(view, of_image) for view, of_image in zip(batch, boxes, strict=True)])
    scores = logits.detach().sigmoid()
    weights = torch.where(is_positive, wanted, NEGATIVE_WEIGHT * is_negative[..., None] * scores**FOCUS)
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return LossSums((weights * entropy).sum() + BOX_WEIGHT * box_loss, wanted.sum())


def _add_wanted(wanted: torch.Tensor, overlap: torch.Tensor, numbers: torch.Tensor) -> None:
    """Sets the wanted scores `(A, C)` of the cells that learn the objects.

    Args:
        overlap: `(M, A)`, of objects and boxes.
        numbers: `(M,)`, of the concepts of the objects.
    """
    best, cells = overlap.topk(min(CELLS_PER_OBJECT_MAX, overlap.shape[1]), dim=1)
    counts = best.sum(dim=1).int().clamp(min=1)
    chosen = torch.arange(best.shape[1], device=best.device) < counts[:, None]
    owner = overlap.argmax(dim=0)  # a cell learns the object that its box overlaps most
    own = chosen & (owner[cells] == torch.arange(len(overlap), device=cells.device)[:, None])
    objects, ranks = own.nonzero(as_tuple=True)
    wanted[cells[objects, ranks], numbers[objects]] = best[objects, ranks]

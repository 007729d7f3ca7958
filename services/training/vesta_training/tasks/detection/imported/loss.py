"""The loss of the class head of an imported detector.

Each object is learned by the cells whose boxes overlap it most, as many as in SimOTA (Ge et al., arXiv 2107.08430), and the score of a
cell becomes the overlap of its box, as in VarifocalNet (Zhang et al., arXiv 2008.13367).
"""

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.ops import box_iou

from vesta_training.tasks.detection.boxed_view import BoxedView

CELLS_PER_OBJECT_MAX = 10
NEGATIVE_WEIGHT = 0.75
FOCUS = 2.0


def imported_loss(outputs: tuple[torch.Tensor, torch.Tensor], batch: Sequence[BoxedView]) -> torch.Tensor:
    """Returns the loss of a batch, by the sum of the wanted scores.

    Args:
        outputs: of an `ImportedHead`: logits and boxes.
    """
    logits, boxes = outputs
    wanted = torch.zeros_like(logits)
    for row, view in enumerate(batch):
        if len(view.boxes):
            objects = torch.from_numpy(view.boxes).to(logits.device)
            numbers = torch.from_numpy(view.numbers).to(logits.device)
            _add_wanted(wanted[row], box_iou(objects, boxes[row]), numbers)
    is_positive = wanted > 0
    scores = logits.detach().sigmoid()
    weights = torch.where(is_positive, wanted, NEGATIVE_WEIGHT * scores**FOCUS)
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    total: torch.Tensor = (weights * entropy).sum() / wanted.sum().clamp(min=len(batch))
    return total


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

"""The loss of a segmentation head: cross entropy of the pixels, and the overlap of the pixels of each concept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from vesta_common.media.segmentation_maps import Map

from vesta_training.tasks.semantic_segmentation.examples import MaskedExample
from vesta_training.tasks.views.views import SOURCE_SCALE, View, view_numbers

SMOOTHING = 1.0


class SquareMap:
    """The map of an image, stretched to a square and run-length encoded, so that all maps of a training fit into memory."""

    def __init__(self, example: MaskedExample, numbers: Mapping[str, int], side_px: int) -> None:
        centres = (np.arange(side_px) + 0.5) / side_px
        rows, columns = (centres * example.height_px).astype(int), (centres * example.width_px).astype(int)
        flat = example.map(numbers)[np.ix_(rows, columns)].ravel()
        starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
        self._lengths = np.diff(starts, append=len(flat)).astype(np.int32)
        self._values = flat[starts]
        self._side_px = side_px

    @property
    def pixels(self) -> Map:
        """`(side_px, side_px)`."""
        return np.repeat(self._values, self._lengths).reshape(self._side_px, self._side_px)


@dataclass(frozen=True, slots=True)
class MappedView:
    """A view of an image to learn from: the key of its maps, and the map of the image."""

    key: str
    view: View
    whole: SquareMap

    def target(self, side_px: int) -> Map:
        """Returns the concept of each pixel of the view, `(side_px, side_px)`."""
        return view_numbers(self.whole.pixels, self.view, side_px)


def source_side(side_px: int) -> int:
    """Returns the side of the square maps of images, from which views are cut."""
    return round(SOURCE_SCALE * side_px)


def segmentation_loss(
    logits: torch.Tensor, batch: Sequence[MappedView], side_px: int, overlap_share: float
) -> torch.Tensor:
    """Returns the loss of a batch.

    Args:
        logits: `(N, C + 1, s, s)`.
        side_px: the side of the input of the network; the loss is computed at half of it.
        overlap_share: the weight of the overlap (soft Dice, Milletari et al., arXiv 1606.04797) of the concepts of the batch.
    """
    side = side_px // 2
    targets = torch.from_numpy(np.stack([view.target(side) for view in batch]).astype(np.int64)).to(logits.device)
    logits = nn.functional.interpolate(logits, size=(side, side), mode="bilinear", align_corners=False)
    entropy = nn.functional.cross_entropy(logits, targets)
    if not overlap_share:
        return entropy
    shares = logits.softmax(dim=1)[:, 1:]
    true = nn.functional.one_hot(targets, logits.shape[1]).permute(0, 3, 1, 2)[:, 1:].to(shares.dtype)
    areas = shares.sum((0, 2, 3)) + true.sum((0, 2, 3))
    dice = 1 - (2 * (shares * true).sum((0, 2, 3)) + SMOOTHING) / (areas + SMOOTHING)
    occurs = true.sum((0, 2, 3)) > 0
    overlap = dice[occurs].mean() if bool(occurs.any()) else dice.sum() * 0
    total: torch.Tensor = (1 - overlap_share) * entropy + overlap_share * overlap
    return total

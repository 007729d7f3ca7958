"""The loss of a segmentation head: cross entropy of the cells, and the overlap of the pixels of each concept."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from vesta_common.media.segmentation_maps import Map

from vesta_training.tasks.semantic_segmentation.examples import MaskedExample
from vesta_training.tasks.views.views import SOURCE_SCALE, View, view_numbers

SMOOTHING = 0.1
"""Of an overlap, in cells."""
POINTS_PER_SIDE = 2
"""The shares of the concepts in a cell are those of so many points along each of its sides."""


class SquareMap:
    """A square map, run-length encoded, so that all maps of a training fit into memory."""

    def __init__(self, pixels: Map) -> None:
        flat = pixels.ravel()
        starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
        self._lengths = np.diff(starts, append=len(flat)).astype(np.int32)
        self._values = flat[starts]
        self._side_px = len(pixels)

    @property
    def pixels(self) -> Map:
        """`(side_px, side_px)`."""
        return np.repeat(self._values, self._lengths).reshape(self._side_px, self._side_px)


def square_map(example: MaskedExample, numbers: Mapping[str, int], side_px: int) -> SquareMap:
    """Returns the map of an image, stretched to a square from which views are cut.

    Args:
        side_px: of the input of the network.
    """
    side = round(SOURCE_SCALE * side_px)
    centres = (np.arange(side) + 0.5) / side
    rows, columns = (centres * example.height_px).astype(int), (centres * example.width_px).astype(int)
    return SquareMap(example.map(numbers)[np.ix_(rows, columns)])


class MappedView:
    """A view of an image to learn from. Its targets are computed once, because every fit of a training meets it several times.

    Attributes:
        key: of its maps.
    """

    def __init__(self, key: str, view: View, whole: SquareMap) -> None:
        """Creates a view.

        Args:
            whole: the map of the image.
        """
        self.key = key
        self._view, self._whole = view, whole
        self._targets: dict[int, SquareMap] = {}

    def target(self, side_px: int) -> Map:
        """Returns the concept of each pixel of the view, `(side_px, side_px)`."""
        if side_px not in self._targets:
            self._targets[side_px] = SquareMap(view_numbers(self._whole.pixels, self._view, side_px))
        return self._targets[side_px].pixels


def segmentation_loss(logits: torch.Tensor, batch: Sequence[MappedView], overlap_share: float) -> torch.Tensor:
    """Returns the loss of a batch, in the cells of the logits: what is to be predicted are the shares of the concepts in each cell.

    Args:
        logits: `(N, C + 1, s, s)`.
        overlap_share: the weight of the overlap of the concepts of the batch: the negative logarithm of their soft Dice (Wong et al.,
            arXiv 1809.00076). A rare concept, whose probability falls at first, would have no gradient without the logarithm.
    """
    true = _shares(batch, logits)
    entropy = nn.functional.cross_entropy(logits, true)
    if not overlap_share:
        return entropy
    shares, true = logits.softmax(dim=1)[:, 1:], true[:, 1:]
    areas = shares.sum((0, 2, 3)) + true.sum((0, 2, 3))
    dice = (2 * (shares * true).sum((0, 2, 3)) + SMOOTHING) / (areas + SMOOTHING)
    occurs = true.sum((0, 2, 3)) > 0
    overlap = -dice[occurs].log().mean() if bool(occurs.any()) else dice.sum() * 0
    total: torch.Tensor = (1 - overlap_share) * entropy + overlap_share * overlap
    return total


def _shares(batch: Sequence[MappedView], logits: torch.Tensor) -> torch.Tensor:
    """Returns the true shares of the classes in each cell, in the shape of the logits."""
    side, points = logits.shape[2], POINTS_PER_SIDE
    numbers = np.stack([view.target(points * side) for view in batch])
    in_cells = numbers.reshape(len(batch), side, points, side, points).transpose(0, 2, 4, 1, 3)
    classes = torch.from_numpy(in_cells.reshape(len(batch), points**2, side**2).astype(np.int64)).to(logits.device)
    one = torch.full(classes.shape, 1 / points**2, device=logits.device)
    shares = torch.zeros(len(batch), logits.shape[1], side**2, device=logits.device).scatter_add_(1, classes, one)
    return shares.reshape(logits.shape)

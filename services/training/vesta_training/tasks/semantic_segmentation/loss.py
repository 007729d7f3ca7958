"""The loss of a segmentation head: cross entropy, and the overlap of the pixels of each concept."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from vesta_common.media.segmentation_maps import Map

from vesta_training.tasks.semantic_segmentation.examples import MaskedExample
from vesta_training.tasks.views.views import SOURCE_SCALE, View, view_numbers

SMOOTHING = 0.1
"""Of an overlap, in cells."""
PLACES_PER_SIDE = 2
"""A cell has so many places along each of its sides."""
DISTANCE = 0.25
"""Of a place from the centre of its cell along each axis, as a share of the distance of two centres."""


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
    """Returns the loss of a batch, at one place of each cell of the logits.

    A cell has `PLACES_PER_SIDE`² places, at which the logits are interpolated as for the map. The images of a batch take turns with them,
    so that a step costs little more than without interpolation. On two folds of held-out blood cells, mIoU was .695 and .687, with one
    place per batch; with the shares of the concepts in each cell as the targets, it was .690 and .688 (mean of two runs each).

    Args:
        logits: `(N, C + 1, s, s)`.
        overlap_share: the weight of the overlap of the concepts of the batch: the negative logarithm of their soft Dice (Wong et al.,
            arXiv 1809.00076). A rare concept, whose probability falls at first, would have no gradient without the logarithm.
    """
    class_count = logits.shape[1]
    logits, true = _at_places(logits, batch)
    logarithms = logits.log_softmax(dim=1)
    own = logarithms.gather(1, true[:, None]).flatten()
    entropy = -own.mean()
    if not overlap_share:
        return entropy
    true = true.flatten()
    counts = torch.bincount(true, minlength=class_count)
    inside = own.new_zeros(class_count).index_add(0, true, own.exp())
    areas = logarithms.exp().sum((0, 2, 3)) + counts
    dice = ((2 * inside + SMOOTHING) / (areas + SMOOTHING))[1:]
    occurs = counts[1:] > 0
    overlap = -dice[occurs].log().mean() if bool(occurs.any()) else dice.sum() * 0
    total: torch.Tensor = (1 - overlap_share) * entropy + overlap_share * overlap
    return total


def _at_places(logits: torch.Tensor, batch: Sequence[MappedView]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the logits at one place of each cell, `(N, C + 1, s, s)`, and the true classes there, `(N, s, s)`."""
    side, place_count = logits.shape[2], PLACES_PER_SIDE**2
    padded = nn.functional.pad(logits.contiguous(), (1, 1, 1, 1), mode="replicate")
    found, true = [], []
    for place in range(min(place_count, len(batch))):
        down, right = divmod(place, PLACES_PER_SIDE)
        own = padded[place::place_count]
        rows = own[:, :, 1:-1].lerp(own[:, :, 2 * down : 2 * down + side], DISTANCE)
        found.append(rows[..., 1:-1].lerp(rows[..., 2 * right : 2 * right + side], DISTANCE))
        classes = np.stack([view.target(PLACES_PER_SIDE * side) for view in batch[place::place_count]])
        true.append(torch.from_numpy(classes[:, down::PLACES_PER_SIDE, right::PLACES_PER_SIDE].astype(np.int64)))
    return torch.cat(found), torch.cat(true).to(logits.device)

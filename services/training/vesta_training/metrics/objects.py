"""Objects found by a model on the items of a test split, and how they match the true ones, as in COCO (Lin et al., arXiv 1405.0312)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from vesta_common.media.box_masks import mask_ious, mask_shares
from vesta_common.media.boxes import box_ious, box_shares
from vesta_common.media.mask_runs import Edges
from vesta_common.media.same_objects import beside_crowds

from vesta_training.metrics.draws import Floats, Numbers

IOUS = np.linspace(0.5, 0.95, 10)
OBJECTS_MAX = 100
"""Objects per item that are matched, the ones with the highest scores."""


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of an item.

    Attributes:
        boxes_xyxy_px: `(M, 4)` in pixels of the stored image.
        numbers: `(M,)`, of their concepts.
        scores: `(M,)`; 1 for true objects.
        masks: M masks on the stored image, each inside of its box; None if objects are boxes.
        is_crowd: `(M,)`, which true objects are crowds; None if none is.
    """

    boxes_xyxy_px: Floats
    numbers: Numbers
    scores: Floats
    masks: tuple[Edges, ...] | None = None
    is_crowd: npt.NDArray[np.bool_] | None = None

    @property
    def crowds(self) -> npt.NDArray[np.bool_]:
        """`(M,)`, which objects are crowds."""
        return np.zeros(len(self.scores), np.bool_) if self.is_crowd is None else self.is_crowd

    def selected(self, chosen: Numbers | npt.NDArray[np.bool_]) -> "Objects":
        """Returns the chosen objects: by their positions, in this order, or by whether each is chosen."""
        masks = self.masks
        if masks is not None:
            masks = tuple(masks[position] for position in np.arange(len(masks))[chosen])
        return Objects(
            self.boxes_xyxy_px[chosen], self.numbers[chosen], self.scores[chosen], masks, self.crowds[chosen]
        )


def object_ious(one: Objects, other: Objects) -> Floats:
    """Returns `(N, M)` intersections over unions of the objects of an image: of their masks, or of their boxes if they have none."""
    overlap = box_ious(one.boxes_xyxy_px, other.boxes_xyxy_px)
    if one.masks is None or other.masks is None:
        return overlap
    return mask_ious(one.masks, other.masks, overlap > 0)


def object_shares(one: Objects, other: Objects) -> Floats:
    """Returns `(N, M)` shares of objects that lie in others: of their masks, or of their boxes if they have none."""
    if one.masks is None or other.masks is None:
        return box_shares(one.boxes_xyxy_px, other.boxes_xyxy_px)
    return mask_shares(one.masks, other.masks)


def without_crowds(found: Objects, truth: Objects) -> tuple[Objects, Objects]:
    """Returns the found and the true objects of an image without crowds, and without those found that are of a crowd of their concept."""
    if not truth.crowds.any():
        return found, truth
    objects, crowds = truth.selected(~truth.crowds), truth.selected(truth.crowds)
    counted = beside_crowds(
        object_ious(found, objects), object_shares(found, crowds), found.numbers, objects.numbers, crowds.numbers
    )
    return found.selected(counted), objects


@dataclass(frozen=True, slots=True)
class ObjectPredictions:
    """Predictions for `items`: true and found objects of each.

    Attributes:
        thresholds: the score of each concept from which an object counts as predicted.
    """

    items: tuple[str, ...]
    concepts: tuple[str, ...]
    truth: tuple[Objects, ...]
    found: tuple[Objects, ...]
    thresholds: tuple[float, ...]

    def selected(self, chosen: npt.NDArray[np.bool_]) -> "ObjectPredictions":
        """Returns the predictions for some of the items."""
        kept = np.flatnonzero(chosen).tolist()
        return replace(
            self,
            items=tuple(self.items[position] for position in kept),
            truth=tuple(self.truth[position] for position in kept),
            found=tuple(self.found[position] for position in kept),
        )


@dataclass(frozen=True, slots=True)
class Matches:
    """The found objects of one concept in descending order of score, and whether each matches a true one.

    Attributes:
        scores: `(D,)`.
        items: `(D,)`, positions of their items.
        hits: `(T, D)`, for each of `IOUS`.
        ignored: `(T, D)`, whether each matches no true object but lies in a crowd, so that it is neither right nor wrong.
        truth_counts: `(N,)`, the number of true objects of each item, without crowds.
    """

    scores: Floats
    items: Numbers
    hits: npt.NDArray[np.bool_]
    ignored: npt.NDArray[np.bool_]
    truth_counts: Numbers

    @property
    def at_50(self) -> "Matches":
        """Those that are right or wrong at an IoU of 0.5: without the ignored ones."""
        counted = ~self.ignored[0]
        hits, ignored = self.hits[:, counted], self.ignored[:, counted]
        return Matches(self.scores[counted], self.items[counted], hits, ignored, self.truth_counts)


def match_concept(predictions: ObjectPredictions, number: int) -> Matches:
    """Matches the objects of one concept in each item: the highest score chooses first, and takes the free true object it overlaps most.

    The match of an object does not depend on objects with lower scores.
    """
    scores, items, hits, ignored, truth_counts = [], [], [], [], []
    for position, (truth, found) in enumerate(zip(predictions.truth, predictions.found, strict=True)):
        true, own = truth.selected(truth.numbers == number), found.selected(found.numbers == number)
        own = own.selected(np.argsort(-own.scores, kind="stable")[:OBJECTS_MAX])
        scores.append(own.scores)
        items.append(np.full(len(own.scores), position))
        objects = true.selected(~true.crowds)
        hits.append(_hits(object_ious(own, objects)))
        in_crowd = object_shares(own, true.selected(true.crowds)).max(axis=1, initial=0)
        ignored.append(~hits[-1] & (in_crowd >= IOUS[:, None]))
        truth_counts.append(len(objects.scores))
    all_scores = np.concatenate(scores) if scores else np.zeros(0)
    order = np.argsort(-all_scores, kind="stable")
    return Matches(
        scores=all_scores[order],
        items=np.concatenate(items)[order] if items else np.zeros(0, dtype=np.int64),
        hits=np.concatenate(hits, axis=1)[:, order] if hits else np.zeros((len(IOUS), 0), dtype=np.bool_),
        ignored=np.concatenate(ignored, axis=1)[:, order] if hits else np.zeros((len(IOUS), 0), dtype=np.bool_),
        truth_counts=np.array(truth_counts, dtype=np.int64),
    )


def over_concepts(predictions: ObjectPredictions, concepts: Sequence[str]) -> ObjectPredictions:
    """Returns the predictions over another list of concepts. Objects of concepts that are not in the list are dropped."""
    numbers = {concept: number for number, concept in enumerate(concepts)}
    new_numbers = np.array([numbers.get(concept, -1) for concept in predictions.concepts], dtype=np.int64)
    thresholds = dict(zip(predictions.concepts, predictions.thresholds, strict=True))

    def renumbered(objects: Objects) -> Objects:
        own = new_numbers[objects.numbers]
        return replace(objects, numbers=own).selected(own >= 0)

    return ObjectPredictions(
        items=predictions.items,
        concepts=tuple(concepts),
        truth=tuple(map(renumbered, predictions.truth)),
        found=tuple(map(renumbered, predictions.found)),
        thresholds=tuple(thresholds.get(concept, 0.5) for concept in concepts),
    )


def _hits(overlap: Floats) -> npt.NDArray[np.bool_]:
    """Returns `(T, D)`, whether each found object, in descending order of score, gets a true object.

    Args:
        overlap: `(D, M)` with the true objects.
    """
    found_count, truth_count = overlap.shape
    hits = np.zeros((len(IOUS), found_count), dtype=np.bool_)
    if not truth_count:
        return hits
    for row, iou in enumerate(IOUS):
        free = np.ones(truth_count, dtype=np.bool_)
        for found in np.flatnonzero(overlap.max(axis=1) >= iou):
            possible = np.where(free, overlap[found], -1.0)
            # Of equal overlaps the last one, as in COCO.
            best = truth_count - 1 - int(possible[::-1].argmax())
            if possible[best] >= iou:
                free[best] = False
                hits[row, found] = True
    return hits

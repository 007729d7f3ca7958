"""Objects found by a model on the items of a test split, and how they match the true ones, as in COCO (Lin et al., arXiv 1405.0312)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from vesta_common.media.box_masks import mask_ious
from vesta_common.media.boxes import box_ious
from vesta_common.media.mask_runs import Edges

IOUS = np.linspace(0.5, 0.95, 10)
OBJECTS_MAX = 100
"""Objects per item that are matched, the ones with the highest scores."""

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of an item.

    Attributes:
        boxes_xyxy_px: `(M, 4)` in pixels of the stored image.
        numbers: `(M,)`, of their concepts.
        scores: `(M,)`; 1 for true objects.
        masks: M masks on the stored image, each inside of its box; None if objects are boxes.
    """

    boxes_xyxy_px: Floats
    numbers: Numbers
    scores: Floats
    masks: tuple[Edges, ...] | None = None

    def selected(self, chosen: Numbers | npt.NDArray[np.bool_]) -> "Objects":
        """Returns the chosen objects: by their positions, in this order, or by whether each is chosen."""
        masks = self.masks
        if masks is not None:
            masks = tuple(masks[position] for position in np.arange(len(masks))[chosen])
        return Objects(self.boxes_xyxy_px[chosen], self.numbers[chosen], self.scores[chosen], masks)


def object_ious(one: Objects, other: Objects) -> Floats:
    """Returns `(N, M)` intersections over unions of the objects of an image: of their masks, or of their boxes if they have none."""
    overlap = box_ious(one.boxes_xyxy_px, other.boxes_xyxy_px)
    if one.masks is None or other.masks is None:
        return overlap
    return mask_ious(one.masks, other.masks, overlap > 0)


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


@dataclass(frozen=True, slots=True)
class Matches:
    """The found objects of one concept in descending order of score, and whether each matches a true one.

    Attributes:
        scores: `(D,)`.
        items: `(D,)`, positions of their items.
        hits: `(T, D)`, for each of `IOUS`.
        truth_counts: `(N,)`, the number of true objects of each item.
    """

    scores: Floats
    items: Numbers
    hits: npt.NDArray[np.bool_]
    truth_counts: Numbers


def match_concept(predictions: ObjectPredictions, number: int) -> Matches:
    """Matches the objects of one concept in each item: the highest score chooses first, and takes the free true object it overlaps most.

    The match of an object does not depend on objects with lower scores.
    """
    scores, items, hits, truth_counts = [], [], [], []
    for position, (truth, found) in enumerate(zip(predictions.truth, predictions.found, strict=True)):
        true, own = truth.selected(truth.numbers == number), found.selected(found.numbers == number)
        own = own.selected(np.argsort(-own.scores, kind="stable")[:OBJECTS_MAX])
        scores.append(own.scores)
        items.append(np.full(len(own.scores), position))
        hits.append(_hits(object_ious(own, true)))
        truth_counts.append(len(true.scores))
    all_scores = np.concatenate(scores) if scores else np.zeros(0)
    order = np.argsort(-all_scores, kind="stable")
    return Matches(
        scores=all_scores[order],
        items=np.concatenate(items)[order] if items else np.zeros(0, dtype=np.int64),
        hits=np.concatenate(hits, axis=1)[:, order] if hits else np.zeros((len(IOUS), 0), dtype=np.bool_),
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

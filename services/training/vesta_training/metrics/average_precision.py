"""Average precision of objects with bootstrap intervals over images.

faster-coco-eval computes the values. It does not give the matches of single images, which the bootstrap draws; these are matched here, and
tests compare both with pycocotools.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval import mask as coco_masks
from vesta_common.media.mask_runs import Edges, area

from vesta_training.metrics.draws import Floats, Numbers
from vesta_training.metrics.objects import IOUS, Matches, ObjectPredictions, Objects, match_concept

RECALLS = np.linspace(0.0, 1.0, 101)
ROUNDED = np.spacing(1)
AREAS = ("all", "small", "medium", "large")
AT_50 = (0,)
ALL_IOUS = tuple(range(len(IOUS)))


@dataclass(frozen=True, slots=True)
class AveragePrecisions:
    """Average precision by concept and area, NaN without true objects.

    Attributes:
        at_50: `(C,)`, at an IoU of 0.5.
        by_area: `(4, C)`, the mean over IoU thresholds of 0.5 … 0.95, by `AREAS`.
    """

    at_50: Floats
    by_area: Floats


@dataclass(frozen=True, slots=True)
class MatchedPredictions:
    """Predictions whose objects are matched with the true ones once, for all draws of their items; see `DrawnMetric`.

    Attributes:
        matches: by concept.
    """

    items: tuple[str, ...]
    concepts: tuple[str, ...]
    matches: tuple[Matches, ...]

    @classmethod
    def of(cls, predictions: ObjectPredictions) -> "MatchedPredictions":
        """Matches the objects of predictions."""
        numbers = range(len(predictions.concepts))
        matches = tuple(match_concept(predictions, number) for number in numbers)
        return cls(predictions.items, predictions.concepts, matches)

    @property
    def found_count(self) -> int:
        """The number of matched objects of all items."""
        return sum(len(one.scores) for one in self.matches)

    @property
    def true_item_counts(self) -> Numbers:
        """`(C,)`, the number of items with true objects of each concept."""
        return np.array([(one.truth_counts > 0).sum() for one in self.matches], dtype=np.int64)

    def by_concept(self, weights: Numbers, rows: Sequence[int] = AT_50) -> Floats:
        """Returns `(C, B)`, the average precision of each concept in each draw of items; NaN without true objects.

        Args:
            rows: positions of the thresholds in `IOUS`, over which the mean is taken.
        """
        return np.stack([drawn_precisions(one, rows, weights) for one in self.matches])


def average_precisions(predictions: ObjectPredictions) -> AveragePrecisions:
    """Evaluates the predictions with faster-coco-eval."""
    logging.getLogger("faster_coco_eval").setLevel(logging.ERROR)
    sizes = [_pixel_count(truth, found) for truth, found in zip(predictions.truth, predictions.found, strict=True)]
    truth = _annotations(predictions.truth, sizes)
    found = _annotations(predictions.found, sizes)
    categories = [{"id": number, "name": concept} for number, concept in enumerate(predictions.concepts)]
    images = [{"id": number, "height": size, "width": 1} for number, size in enumerate(sizes)]
    known = COCO({"images": images, "annotations": truth, "categories": categories})
    # loadRes rejects an empty list.
    answers = known.loadRes(found) if found else COCO({"images": images, "annotations": [], "categories": categories})
    evaluation = COCOeval_faster(known, answers, _kind(predictions), print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[..., -1]  # (T, R, C, area), -1 without true objects
    precision = np.where(precision < 0, np.nan, precision)
    return AveragePrecisions(
        at_50=precision[0, :, :, 0].mean(axis=0), by_area=precision.mean(axis=(0, 1)).T.astype(np.float64)
    )


def drawn_precisions(matches: Matches, rows: Sequence[int], weights: Numbers) -> Floats:
    """Returns the average precision of one concept in each draw of items, `(B,)`, as a mean over IoU thresholds; NaN without objects.

    Args:
        rows: positions of the thresholds in `IOUS`.
        weights: `(B, N)`, how often each item is drawn.
    """
    drawn = np.full(len(weights), np.nan)
    for draw, counts in enumerate(weights):
        positives = int(counts @ matches.truth_counts)
        if positives:
            of_found = counts[matches.items]
            drawn[draw] = np.mean(
                [
                    _interpolated(of_found * matches.hits[row], np.cumsum(of_found * ~matches.ignored[row]), positives)
                    for row in rows
                ]
            )
    return drawn


def _interpolated(hits: npt.NDArray[np.int64], total: npt.NDArray[np.int64], positives: int) -> float:
    """Returns the precision at 101 recalls, with the highest precision of any higher recall, as a mean."""
    right = np.cumsum(hits)
    precision = np.maximum.accumulate((right / (total + ROUNDED))[::-1])[::-1]
    positions = np.searchsorted(right / positives, RECALLS, side="left")
    return float(precision[positions[positions < len(precision)]].sum() / len(RECALLS))


def _kind(predictions: ObjectPredictions) -> str:
    """Returns what is compared: masks if all objects have them, or else boxes."""
    return "bbox" if any(objects.masks is None for objects in (*predictions.truth, *predictions.found)) else "segm"


def _annotations(objects_of_items: Sequence[Objects], sizes: Sequence[int]) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = []
    for image, (objects, size) in enumerate(zip(objects_of_items, sizes, strict=True)):
        shapes = (
            map(_box, objects.boxes_xyxy_px) if objects.masks is None else (_mask(one, size) for one in objects.masks)
        )
        described = zip(shapes, objects.numbers, objects.scores, objects.crowds, strict=True)
        for shape, number, score, is_crowd in described:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(number),
                    "iscrowd": int(is_crowd),
                    "score": float(score),
                    **shape,
                }
            )
    return annotations


def _box(box: Floats) -> dict[str, Any]:
    x, y, width, height = float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])
    return {"bbox": [x, y, width, height], "area": width * height}


def _mask(edges: Edges, pixel_count: int) -> dict[str, Any]:
    """Returns a mask as COCO's run lengths, which are those of columns. As one column of all pixels, masks overlap as on the image."""
    runs = np.diff(np.concatenate([[0], edges, [pixel_count]]))
    encoded = coco_masks.frPyObjects({"size": [pixel_count, 1], "counts": runs.tolist()}, pixel_count, 1)
    return {"segmentation": encoded, "area": area(edges)}


def _pixel_count(*objects: Objects) -> int:
    """Returns a number of pixels that includes all masks of an image."""
    return max((int(edges[-1]) for one in objects for edges in one.masks or () if len(edges)), default=1)

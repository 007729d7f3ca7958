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
from vesta_contracts.training.v1 import Estimate

from vesta_training.intervals import PERCENTILES_95
from vesta_training.metrics.objects import Floats, Matches, ObjectPredictions, Objects

RECALLS = np.linspace(0.0, 1.0, 101)
ROUNDED = np.spacing(1)
# The time of a bootstrap is proportional to the number of objects in all draws.
DRAWN_OBJECTS_MAX = 20_000_000
DRAWS_MIN = 200
AREAS = ("all", "small", "medium", "large")


@dataclass(frozen=True, slots=True)
class AveragePrecisions:
    """Average precision by concept and area, NaN without true objects.

    Attributes:
        at_50: `(C,)`, at an IoU of 0.5.
        by_area: `(4, C)`, the mean over IoU thresholds of 0.5 … 0.95, by `AREAS`.
    """

    at_50: Floats
    by_area: Floats


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


def drawn_precisions(matches: Matches, rows: Sequence[int], weights: npt.NDArray[np.int64]) -> Floats:
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
            total = np.cumsum(of_found)
            drawn[draw] = np.mean([_interpolated(of_found * matches.hits[row], total, positives) for row in rows])
    return drawn


def draw_items(item_count: int, object_count: int, draws: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Returns `(B, N)`, how often each item is in each draw with replacement. Fewer draws for very many objects."""
    draws = max(DRAWS_MIN, min(draws, DRAWN_OBJECTS_MAX // max(1, object_count)))
    return generator.multinomial(item_count, np.full(item_count, 1 / item_count), size=draws)


def interval(value: float, drawn: Floats, outside: float = PERCENTILES_95[0]) -> Estimate:
    """Returns a value with the percentile interval of its draws, of which those without objects are left out.

    Args:
        outside: percentage of the draws below and above the interval.
    """
    known = drawn[~np.isnan(drawn)]
    low, high = np.percentile(known, (outside, 100 - outside)) if len(known) else (value, value)
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))


def mean_over_concepts(drawn: Floats) -> Floats:
    """Returns the mean over the concepts, `(C, B)` → `(B,)`, of those with true objects; NaN if there are none."""
    known = ~np.isnan(drawn)
    total = np.where(known, drawn, 0).sum(axis=0)
    mean: Floats = np.divide(total, known.sum(axis=0), out=np.full(drawn.shape[1], np.nan), where=known.any(axis=0))
    return mean


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
        for shape, number, score in zip(shapes, objects.numbers, objects.scores, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(number),
                    "iscrowd": 0,
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

"""True and found objects for tests of metrics, and their evaluation by pycocotools."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from vesta_common.media.mask_runs import mask_edges
from vesta_contracts.training.v1 import Metrics
from vesta_training.metrics.objects import ObjectPredictions, Objects

CONCEPTS = ("cell", "plate", "rare", "never")
SIDE_PX = 440


def nothing() -> Objects:
    return Objects(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.zeros(0))


def some_predictions(
    seed: int, item_count: int = 30, *, jitter_px: float = 8, missed: float = 0.2
) -> ObjectPredictions:
    """True objects of many sizes and of three of four concepts, found with errors; the first item has none."""
    truth_generator, generator = np.random.default_rng(1), np.random.default_rng(seed)
    truth, found = [nothing()], [nothing()]
    for _ in range(1, item_count):
        count = int(truth_generator.integers(0, 8))
        corner, sides = truth_generator.uniform(0, 300, (count, 2)), truth_generator.uniform(8, 140, (count, 2))
        boxes = np.concatenate([corner, corner + sides], axis=1)
        numbers = truth_generator.choice(3, count, p=(0.6, 0.35, 0.05))
        truth.append(Objects(boxes, numbers, np.ones(count)))
        is_found = generator.random(count) > missed
        extra = int(generator.integers(0, 4))
        more = generator.uniform(0, 300, (extra, 2))
        guessed = np.concatenate(
            [
                boxes[is_found] + generator.normal(0, jitter_px, (int(is_found.sum()), 4)),
                np.concatenate([more, more + generator.uniform(8, 140, (extra, 2))], axis=1),
            ]
        )
        guessed[:, 2:] = np.maximum(guessed[:, 2:], guessed[:, :2] + 1)
        concepts = np.concatenate([numbers[is_found], generator.integers(0, 4, extra)])
        found.append(Objects(guessed, concepts, np.round(generator.uniform(0.05, 1, len(guessed)), 2)))
    items = tuple(f"items/{number}" for number in range(item_count))
    return ObjectPredictions(items, CONCEPTS, tuple(truth), tuple(found), (0.5,) * 4)


def annotations(objects_of_items: Sequence[Objects]) -> list[dict[str, Any]]:
    """Objects as COCO annotations; masks are encoded from their pixels."""
    rows: list[dict[str, Any]] = []
    for image, objects in enumerate(objects_of_items):
        for place, (number, score) in enumerate(zip(objects.numbers, objects.scores, strict=True)):
            x, y, right, bottom = objects.boxes_xyxy_px[place].tolist()
            shape = {"bbox": [x, y, right - x, bottom - y], "area": (right - x) * (bottom - y)}
            if objects.masks is not None:
                pixels = pixels_of(objects.masks[place])
                encoded = coco_masks.encode(np.asfortranarray(pixels.astype(np.uint8)))
                shape = {"segmentation": encoded, "area": float(pixels.sum())}
            one = {
                "id": len(rows) + 1,
                "image_id": image,
                "category_id": int(number),
                "iscrowd": int(objects.crowds[place]),
                "score": float(score),
            }
            rows.append(one | shape)
    return rows


def pixels_of(edges: NDArray[np.int64]) -> NDArray[np.bool_]:
    steps = np.zeros(SIDE_PX * SIDE_PX + 1, np.int8)
    steps[edges[::2]], steps[edges[1::2]] = 1, -1
    return np.cumsum(steps)[:-1].reshape(SIDE_PX, SIDE_PX).astype(np.bool_)


def with_masks(predictions: ObjectPredictions, seed: int) -> ObjectPredictions:
    """The same objects as masks: ellipses in their boxes, of which each has lost the pixels beyond a random line."""
    generator = np.random.default_rng(seed)
    down, across = np.mgrid[:SIDE_PX, :SIDE_PX] + 0.5

    def masked(objects: Objects) -> Objects:
        masks = []
        for x_min, y_min, x_max, y_max in objects.boxes_xyxy_px:
            x, y = (across - (x_min + x_max) / 2) / (x_max - x_min), (down - (y_min + y_max) / 2) / (y_max - y_min)
            inside = (x**2 + y**2 < 0.25) & (x + y < generator.uniform(0.2, 0.6))
            masks.append(mask_edges(inside, 0, 0, SIDE_PX))
        return replace(objects, masks=tuple(masks))

    return replace(
        predictions, truth=tuple(map(masked, predictions.truth)), found=tuple(map(masked, predictions.found))
    )


def by_pycocotools(predictions: ObjectPredictions, kind: str = "bbox") -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {
            "images": [{"id": number, "height": SIDE_PX, "width": SIDE_PX} for number in range(len(predictions.items))],
            "annotations": annotations(predictions.truth),
            "categories": [{"id": number, "name": concept} for number, concept in enumerate(predictions.concepts)],
        }
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(annotations(predictions.found)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def check_with_pycocotools(metrics: Metrics, predictions: ObjectPredictions, kind: str = "bbox") -> None:
    """Asserts that mAP, at all thresholds, at 0.5 and by size, is that of pycocotools."""
    expected = by_pycocotools(predictions, kind).stats
    actual = [
        metrics.mean_average_precision.value,
        metrics.mean_average_precision_50.value,
        metrics.mean_average_precision_small,
        metrics.mean_average_precision_medium,
        metrics.mean_average_precision_large,
    ]
    assert actual == pytest.approx([expected[0], expected[1], *expected[3:6]], abs=1e-6)

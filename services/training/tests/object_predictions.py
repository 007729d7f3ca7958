"""True and found objects for tests of metrics."""

import numpy as np
from vesta_training.metrics.objects import ObjectPredictions, Objects

CONCEPTS = ("cell", "plate", "rare", "never")


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

"""The learning curve of random labels of shapes: better models need more random labels, and too few labels give a reason."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from object_predictions import some_predictions
from vesta_training.metrics.average_precision import MatchedPredictions
from vesta_training.metrics.draws import DrawnMetric
from vesta_training.metrics.segmentation import MapPredictions
from vesta_training.metrics.shape_curve import NO_CONCEPTS, ShapeCurve, solve

ITEMS = 120
COUNTS = (10, 20, 40, 80, 160)
At = Callable[[float, int], DrawnMetric]


def objects_at(label_count: float, seed: int) -> DrawnMetric:
    """Predicted objects that improve with the number of labels."""
    missed = min(0.9, 0.1 + 3 / label_count**0.7)
    return MatchedPredictions.of(some_predictions(seed, ITEMS, jitter_px=4, missed=missed))


def maps_at(label_count: float, seed: int) -> DrawnMetric:
    """Predicted maps whose overlap with the true ones improves with the number of labels."""
    true = np.random.default_rng(1).integers(0, 2000, (ITEMS, 3))
    generator = np.random.default_rng(seed)
    overlap = np.clip(0.8 - 2 / label_count**0.7 + generator.normal(0, 0.05, true.shape), 0, 1)
    return MapPredictions(
        items=tuple(f"items/{number}" for number in range(ITEMS)),
        concepts=("a", "b", "c"),
        shared_px=(true * overlap).astype(np.int64),
        true_px=true,
        predicted_px=true,
        scores=np.ones(true.shape, np.float32),
        margins=np.ones(ITEMS, np.float32),
    )


@pytest.fixture(params=[objects_at, maps_at], ids=["objects", "maps"])
def predictions_at(request: pytest.FixtureRequest) -> At:
    at: At = request.param
    return at


def a_curve(at: At, counts: tuple[int, ...] = COUNTS, draws: int = 2) -> ShapeCurve:
    return ShapeCurve(
        counts,
        tuple(np.arange(ITEMS) % 2 for _ in range(draws)),
        tuple(tuple(at(count, 10 * draw + count) for count in counts) for draw in range(draws)),
    )


def test_a_curve_rises_and_its_intervals_contain_its_points(predictions_at: At) -> None:
    points = solve(a_curve(predictions_at), predictions_at(80, 1), seed=0).points

    values = [point.metric.value for point in points]
    assert [point.label_count for point in points] == list(COUNTS)
    assert values[0] < values[2] < values[4]
    assert all(point.metric.low < point.metric.value < point.metric.high for point in points)


@pytest.mark.parametrize("label_count", [30, 80])
def test_the_random_labels_of_a_model_are_found(predictions_at: At, label_count: int) -> None:
    found = solve(a_curve(predictions_at), predictions_at(label_count, 999), seed=0).random_labels

    assert not found.reason
    assert found.labels.low <= label_count <= found.labels.high
    assert label_count / 2.5 < found.labels.value < label_count * 2.5


def test_few_labels_give_points_and_a_reason() -> None:
    solved = solve(a_curve(objects_at, (10, 20, 30)), objects_at(20, 1), seed=0)

    assert len(solved.points) == 3
    assert "more than 40 are required" in solved.random_labels.reason


def test_without_labels_there_is_no_curve() -> None:
    solved = solve(None, None, seed=0)

    assert (solved.points, bool(solved.random_labels.reason)) == ((), True)


def test_test_items_without_concepts_give_a_reason() -> None:
    nothing = MapPredictions(
        ("items/0",), ("a",), *(np.zeros((1, 1), np.int64) for _ in range(3)), np.zeros((1, 1)), np.ones(1)
    )

    solved = solve(ShapeCurve((10,), (np.zeros(1, np.int64),), ((nothing,),)), nothing, seed=0)

    assert (solved.points, solved.random_labels.reason) == ((), NO_CONCEPTS)


def test_one_fold_has_no_spread_between_labels() -> None:
    curve = replace(a_curve(objects_at, draws=1), folds=(np.zeros(ITEMS, dtype=np.int64),))

    assert len(solve(curve, objects_at(80, 1), seed=0).points) == 5

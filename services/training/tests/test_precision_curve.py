"""The learning curve of random labels in mAP: better detectors need more random labels, and too few labels give a reason."""

from dataclasses import replace

import numpy as np
import pytest
from object_predictions import some_predictions
from vesta_training.metrics.objects import ObjectPredictions
from vesta_training.metrics.precision_curve import PrecisionCurve, solve

ITEMS = 120
COUNTS = (10, 20, 40, 80, 160)


def predictions_at(label_count: float, seed: int) -> ObjectPredictions:
    """Predictions that improve with the number of labels."""
    return some_predictions(seed, ITEMS, jitter_px=4, missed=min(0.9, 0.1 + 3 / label_count**0.7))


def a_curve(counts: tuple[int, ...] = COUNTS, draws: int = 2) -> PrecisionCurve:
    return PrecisionCurve(
        counts,
        tuple(np.arange(ITEMS) % 2 for _ in range(draws)),
        tuple(tuple(predictions_at(count, 10 * draw + count) for count in counts) for draw in range(draws)),
    )


def test_a_curve_rises_and_its_intervals_contain_its_points() -> None:
    points = solve(a_curve(), predictions_at(80, 1), seed=0).points

    values = [point.metric.value for point in points]
    assert [point.label_count for point in points] == list(COUNTS)
    assert values[0] < values[2] < values[4]
    assert all(point.metric.low < point.metric.value < point.metric.high for point in points)


@pytest.mark.parametrize("label_count", [30, 80])
def test_the_random_labels_of_a_model_are_found(label_count: int) -> None:
    found = solve(a_curve(), predictions_at(label_count, 999), seed=0).random_labels

    assert not found.reason
    assert found.labels.low <= label_count <= found.labels.high
    assert label_count / 2.5 < found.labels.value < label_count * 2.5


def test_few_labels_give_points_and_a_reason() -> None:
    solved = solve(a_curve((10, 20, 30)), predictions_at(20, 1), seed=0)

    assert len(solved.points) == 3
    assert "more than 40 are required" in solved.random_labels.reason


def test_without_labels_there_is_no_curve() -> None:
    solved = solve(None, None, seed=0)

    assert (solved.points, bool(solved.random_labels.reason)) == ((), True)


def test_one_fold_has_no_spread_between_labels() -> None:
    curve = replace(a_curve(draws=1), folds=(np.zeros(ITEMS, dtype=np.int64),))

    assert len(solve(curve, predictions_at(80, 1), seed=0).points) == 5

"""Margins of predictions: the distance from another prediction."""

import numpy as np
import pytest
from vesta_common.media.predictions import margin_of_best, margin_to_thresholds


@pytest.mark.parametrize(
    ("probabilities", "margin"),
    [([], 0.0), ([0.75], 0.75), ([0.25, 0.75], 0.5), ([0.5, 0.5], 0.0), ([0.125, 0.625, 0.25], 0.375)],
)
def test_the_margin_of_the_best_is_the_distance_to_the_second(probabilities: list[float], margin: float) -> None:
    assert margin_of_best(np.array([probabilities], np.float32)).tolist() == [margin]


def test_the_margin_to_thresholds_is_that_of_the_closest_score() -> None:
    scores = np.array([[0.75, 0.125], [0.5, 1.0], [1.0, 0.0]], np.float32)
    thresholds = np.array([0.5, 0.25], np.float32)
    assert margin_to_thresholds(scores, thresholds).tolist() == [0.5, 0.0, 1.0]
    assert margin_to_thresholds(np.empty((2, 0), np.float32), np.empty(0, np.float32)).tolist() == [1.0, 1.0]

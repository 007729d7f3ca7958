"""Temperature and thresholds correct miscalibration, and keep their defaults with too few data."""

import numpy as np
import pytest
from vesta_training.heads.calibration import fit_temperature, fit_thresholds, half_best_f1, log_loss
from vesta_training.heads.logistic_regression import Link, sigmoid, softmax


def drawn(logits: np.ndarray, link: Link) -> np.ndarray:
    """Draws labels with the probabilities of the logits."""
    generator = np.random.default_rng(5)
    if link == "sigmoid":
        return generator.random(logits.shape) < sigmoid(logits)
    heights = softmax(logits).cumsum(axis=1)
    return np.eye(logits.shape[1], dtype=np.bool_)[
        (generator.random((len(logits), 1)) > heights).sum(axis=1).clip(max=3)
    ]


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_an_applied_temperature_is_recovered(link: Link, temperature: float) -> None:
    honest = np.random.default_rng(2).normal(0, 2, (4000, 4)).astype(np.float32)

    assert fit_temperature(honest * temperature, drawn(honest, link), link) == pytest.approx(temperature, rel=0.08)


def test_few_answers_change_the_temperature_little() -> None:
    logits = np.array([[9, 0], [9, 0], [0, 9]], dtype=np.float32)

    assert 0.5 < fit_temperature(logits, np.eye(2, dtype=np.bool_)[[0, 0, 1]], "softmax") <= 1


def test_without_answers_the_temperature_is_one() -> None:
    assert fit_temperature(np.zeros((0, 3), dtype=np.float32), np.zeros((0, 3), dtype=np.bool_), "softmax") == 1.0


def test_a_wrong_certain_prediction_has_a_large_finite_loss() -> None:
    assert log_loss(np.array([[1, 0]], dtype=np.float32), np.array([[False, True]]), "softmax") == pytest.approx(
        16.1, abs=0.1
    )


def test_a_threshold_lies_between_the_scores_that_it_separates() -> None:
    probabilities = np.array([[0.9], [0.8], [0.7], [0.4], [0.35], [0.3], [0.1]], dtype=np.float32)
    labels = np.array([[1], [1], [1], [1], [1], [0], [0]], dtype=np.bool_)

    assert fit_thresholds(probabilities, labels)[0] == pytest.approx(0.325)


@pytest.mark.parametrize("positives", [0, 4, 20])
def test_a_concept_with_too_few_answers_keeps_the_threshold_one_half(positives: int) -> None:
    labels = np.arange(20)[:, None] < positives

    assert fit_thresholds(np.linspace(1, 0, 20, dtype=np.float32)[:, None], labels) == (0.5,)
    assert half_best_f1(np.linspace(1, 0, 20, dtype=np.float32)[:, None], labels) == (0.5,)


def test_half_of_the_best_f1_is_the_best_threshold_of_calibrated_probabilities() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.random((4000, 2)).astype(np.float32)
    labels = generator.random((4000, 2)) < probabilities

    # The F1 (1 - t^2) / (3/2 - t) of uniform probabilities is the highest at this t.
    assert half_best_f1(probabilities, labels) == pytest.approx([(3 - np.sqrt(5)) / 2] * 2, abs=0.01)


def test_equal_probabilities_are_not_separated() -> None:
    probabilities = np.full((12, 1), 0.6, dtype=np.float32)
    labels = np.arange(12)[:, None] < 6

    assert fit_thresholds(probabilities, labels)[0] < 0.6

"""Calibration of a head: a temperature and, for multi-label, a threshold per concept.

Both are fitted on predictions for images that were held out when the head was fitted.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar

from vesta_training.example import Array
from vesta_training.heads.logistic_regression import Link, sigmoid, softmax

TEMPERATURE_MIN, TEMPERATURE_MAX = 0.05, 20.0
# Standard deviation of the prior on ln(temperature). With few predictions it keeps the temperature near 1.
LOG_TEMPERATURE_SPREAD = 0.5
# The same of the slope and the shift of scores.
LOG_SLOPE_SPREAD, SHIFT_SPREAD = 0.5, 1.0
SCORE_MIN = 1e-6
# A concept with fewer positive items has the threshold 0.5.
POSITIVES_FOR_THRESHOLD_MIN = 5
EVEN_ODDS = 0.5
# Lower limit of probabilities in a log loss, so that a confident wrong prediction does not make it infinite.
PROBABILITY_MIN = 1e-7


def log_loss(probabilities: Array, labels: npt.NDArray[np.bool_], link: Link) -> float:
    """Returns the mean log loss of the items; for multi-label the mean of the sums over the concepts."""
    if len(probabilities) == 0:
        return 0.0
    clipped = np.clip(probabilities.astype(np.float64), PROBABILITY_MIN, 1 - PROBABILITY_MIN)
    if link == "softmax":
        return float(-np.log(clipped[labels]).sum() / len(clipped))
    return float(-np.where(labels, np.log(clipped), np.log1p(-clipped)).sum() / len(clipped))


def fit_temperature(logits: Array, labels: npt.NDArray[np.bool_], link: Link) -> float:
    """Returns the temperature, the divisor of logits, with the least log loss (Guo et al., arXiv 1706.04599).

    Args:
        logits: `(N, C)` of held-out items.
        labels: `(N, C)`.
    """
    if len(logits) == 0:
        return 1.0
    answer = softmax if link == "softmax" else sigmoid

    def badness(log_temperature: float) -> float:
        loss = log_loss(answer(logits / np.float32(np.exp(log_temperature))), labels, link) * len(logits)
        return loss + 0.5 * (log_temperature / LOG_TEMPERATURE_SPREAD) ** 2

    minimum = minimize_scalar(badness, bounds=(np.log(TEMPERATURE_MIN), np.log(TEMPERATURE_MAX)), method="bounded")
    return float(np.exp(minimum.x))


def fit_platt(scores: npt.NDArray[np.float64], hits: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Returns slope and shift of the logits of scores with the least log loss (Platt scaling).

    Args:
        scores: `(N,)` in [0, 1], of held-out items.
        hits: `(N,)`.
    """
    logits = logit(scores)

    def badness(values: Sequence[float]) -> float:
        z = np.exp(values[0]) * logits + values[1]
        loss = np.logaddexp(0, np.where(hits, -z, z)).sum()
        return float(loss + 0.5 * (values[0] / LOG_SLOPE_SPREAD) ** 2 + 0.5 * (values[1] / SHIFT_SPREAD) ** 2)

    fitted = minimize(badness, (0.0, 0.0), method="L-BFGS-B", bounds=((-2, 2), (-6, 6))).x
    return float(np.exp(fitted[0])), float(fitted[1])


def platt_scores(scores: npt.NDArray[np.float64], slope: float, shift: float) -> npt.NDArray[np.float64]:
    """Returns calibrated scores."""
    calibrated: npt.NDArray[np.float64] = 1 / (1 + np.exp(-(slope * logit(scores) + shift)))
    return calibrated


def logit(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the logits of scores, which are clipped to [1e-6, 1 - 1e-6]."""
    clipped = scores.clip(SCORE_MIN, 1 - SCORE_MIN)
    logits: npt.NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return logits


def fit_thresholds(probabilities: Array, labels: npt.NDArray[np.bool_]) -> tuple[float, ...]:
    """Returns for each concept the threshold with the best F1 on held-out items."""
    return tuple(_threshold(probabilities[:, column], labels[:, column]) for column in range(labels.shape[1]))


def half_best_f1(probabilities: Array, labels: npt.NDArray[np.bool_]) -> tuple[float, ...]:
    """Returns for each concept half of the best F1 on held-out items: the threshold with the best F1 of calibrated probabilities (Lipton
    et al., arXiv 1402.1892), which varies less with the items than the best one on them.
    """
    return tuple(
        EVEN_ODDS if _is_undecided(own) else float(_f1(column, own)[1].max()) / 2
        for column, own in zip(probabilities.T, labels.T, strict=True)
    )


def _is_undecided(labels: npt.NDArray[np.bool_]) -> bool:
    """Whether labels are too few, or all positive, to choose a threshold."""
    positives = int(labels.sum())
    return positives < POSITIVES_FOR_THRESHOLD_MIN or positives == len(labels)


def _f1(probabilities: Array, labels: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns the probabilities, falling, and the F1 with the threshold just below each; -1 where none separates two equal ones."""
    order = np.argsort(-probabilities, kind="stable")
    falling = probabilities[order].astype(np.float64)
    right = np.cumsum(labels[order])
    said_yes = np.arange(1, len(order) + 1)
    f1 = 2 * right / (said_yes + int(labels.sum()))
    f1[:-1][falling[:-1] == falling[1:]] = -1
    return falling, f1


def _threshold(probabilities: Array, labels: npt.NDArray[np.bool_]) -> float:
    if _is_undecided(labels):
        return EVEN_ODDS
    falling, f1 = _f1(probabilities, labels)
    best = int(np.argmax(f1))
    next_lower = falling[best + 1] if best + 1 < len(falling) else 0.0
    return float((falling[best] + next_lower) / 2)

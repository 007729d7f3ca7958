"""How many labels active selection has saved: the control arm's learning curve, read backwards.

Accuracy grows with random labels about as `a − b · n^−c` (a power law; Hestness et al., arXiv 1712.00409). The curve is
fitted to what the control arm alone teaches, and solved for the champion's accuracy: so many random labels it would have
taken. Where the curve does not carry the claim, nothing is claimed.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.conductor.v1 import LabelSaving
from vesta_contracts.training.v1 import Estimate, LearningCurvePoint

POINTS_MIN = 3
EXTRAPOLATION_MAX = 10.0  # times the largest number of random labels that was tried
DRAWS = 400
DRAWS_SOLVED_MIN = 0.5  # share of the draws that must have an answer
SPREAD_MIN = 0.005  # of a point's accuracy, in points
EXPONENTS = np.linspace(0.1, 2.0, 39)
Z_95 = 1.959963984540054

Array = NDArray[np.float64]


def label_saving(points: Sequence[LearningCurvePoint], accuracy: float, spent_labels: int) -> LabelSaving | None:
    """Labels that random choice would have needed for `accuracy`, against those spent.

    Args:
        points: of the control arm, in any order; those without labels or interval tell nothing.
        accuracy: the champion's, on the same test side.
        spent_labels: labels the champion was trained on.

    Returns:
        None while fewer than three points are useful, or accuracy does not grow along them, or the answer lies beyond
        ten times the labels tried. The upper end of the interval stops there.
    """
    useful = sorted((point for point in points if point.label_count > 0), key=lambda point: point.label_count)
    if len({point.label_count for point in useful}) < POINTS_MIN:
        return None
    labels = np.array([point.label_count for point in useful], dtype=np.float64)
    values = np.array([point.accuracy.value for point in useful])
    spreads = _spreads(useful)
    labels_max = EXTRAPOLATION_MAX * labels[-1]
    needed = float(_labels_needed(labels, values[None, :], spreads, accuracy)[0])
    if not needed <= labels_max:
        return None
    random = np.random.default_rng(0)
    drawn = np.clip(values + spreads * random.standard_normal((DRAWS, len(values))), 0.0, 1.0)
    draws = _labels_needed(labels, drawn, spreads, accuracy)
    solved = draws[~np.isnan(draws)]
    if len(solved) < DRAWS_SOLVED_MIN * DRAWS:
        return None
    low, high = np.percentile(np.minimum(solved, labels_max), [2.5, 97.5])
    return LabelSaving(
        random_labels=Estimate(value=needed, low=min(float(low), needed), high=max(float(high), needed)),
        spent_labels=spent_labels,
        saved_labels=round(needed) - spent_labels,
    )


def _spreads(points: Sequence[LearningCurvePoint]) -> Array:
    """The standard deviation of each point, `(P,)`. One without width rests on a single draw, such as the point of all
    labels, and is trusted no more than the one before it."""
    spreads = [(point.accuracy.high - point.accuracy.low) / (2 * Z_95) for point in points]
    for place, spread in enumerate(spreads):
        if spread <= 0 and place:
            spreads[place] = spreads[place - 1]
    return np.maximum(spreads, SPREAD_MIN)


def _labels_needed(labels: Array, accuracies: Array, spreads: Array, accuracy: float) -> Array:
    """Fits a curve to each row and solves it for `accuracy`.

    Args:
        labels: `(P,)` counts.
        accuracies: `(R, P)`.
        spreads: `(P,)` standard deviations.
        accuracy: the level asked for.

    Returns:
        `(R,)`: labels, at least 1; infinite where the fitted curve never gets there; not a number where it falls.
    """
    weights = 1.0 / spreads**2
    weights = weights / weights.sum()
    best_loss = np.full(len(accuracies), np.inf)
    needed = np.full(len(accuracies), np.nan)
    for exponent in EXPONENTS:
        shrink = labels**-exponent
        shrink_mean = float(weights @ shrink)
        mean = accuracies @ weights
        slope = (
            -((accuracies - mean[:, None]) * (shrink - shrink_mean)) @ weights / (weights @ (shrink - shrink_mean) ** 2)
        )
        limit = mean + slope * shrink_mean
        capped = limit > 1.0  # no accuracy exceeds 1: the best curve below it goes through it
        slope = np.where(capped, ((1.0 - accuracies) * shrink) @ weights / float(weights @ shrink**2), slope)
        limit = np.minimum(limit, 1.0)
        loss = ((limit[:, None] - slope[:, None] * shrink - accuracies) ** 2) @ weights
        with np.errstate(divide="ignore", invalid="ignore"):
            solution = np.where(limit > accuracy, ((limit - accuracy) / slope) ** (-1.0 / exponent), np.inf)
        solution = np.where(slope > 0, np.maximum(solution, 1.0), np.nan)
        better = loss < best_loss
        best_loss = np.where(better, loss, best_loss)
        needed = np.where(better, solution, needed)
    return needed

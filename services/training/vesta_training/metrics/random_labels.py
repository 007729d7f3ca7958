"""Estimates how many random labels would give the accuracy of a model, by solving the learning curve of random labels.

Two families of curves are fitted: a power law `a − b·n^−c` (Hestness et al., arXiv 1712.00409) and a saturating curve
`a·(1 − exp(−(n/t)^b))`, as in PALM (ICCV 2025). Neither is known to be right, and they differ when extrapolated. Half of the bootstrap
replicates use one family and half the other, so that the interval includes the uncertainty about the family. A replicate draws test
items with replacement, the same ones for the curve and for the model, because easy and hard items are the same for both.
`benchmarks/saving_coverage.py` measures the coverage of the interval.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from vesta_contracts.training.v1 import Estimate, RandomLabels

from vesta_training.intervals import PERCENTILES_95
from vesta_training.metrics.learning_curve import LearningCurve

REPLICATES = 400
COUNTS_MIN = 4  # points of the curve, which need more than 40 labels
EXTRAPOLATION_MAX = 10  # as a multiple of the largest number of random labels of the curve
RISING_MIN = 0.5  # minimum share of replicates in which the power law rises
SPREAD_MIN = 0.005  # lower limit of the deviation of a point, which limits its weight
EXPONENTS = np.linspace(0.1, 2.0, 39)
SCALES = np.geomspace(1, 3000, 40)
SHAPES = np.linspace(0.15, 1.0, 18)

Floats = npt.NDArray[np.float64]
Solve = Callable[[Floats], Floats]
"""Maps accuracies `(R,)` to numbers of labels `(R,)`: infinite if the curve never reaches the accuracy, NaN if the curve falls."""


def random_labels(curve: LearningCurve | None, correct: npt.NDArray[np.bool_], *, seed: int) -> RandomLabels:
    """Estimates the number of random labels that are needed for the accuracy of a model.

    Args:
        curve: of random labels; None if there are too few labels.
        correct: `(T,)`, whether the model predicts each item of the test split correctly.

    Returns:
        The estimate with a 95 % interval, or the reason why there is none.
    """
    if curve is None or len(curve.label_counts) < COUNTS_MIN:
        return RandomLabels(
            reason="too few randomly drawn labels for a learning curve: more than 40 are required, from "
            "the control arm and, if the content hash assigned the test split, from four fifths "
            "of its labels"
        )
    accuracies, targets = _replicates(curve, correct[curve.items], np.random.default_rng(seed))
    return solve_curve(curve.label_counts, accuracies, targets)


def solve_curve(label_counts: Sequence[int], accuracies: Floats, targets: Floats) -> RandomLabels:
    """Estimates the number of random labels from bootstrap replicates of the primary metric.

    Args:
        label_counts: `(S,)`, ascending.
        accuracies: `(R, S)`, replicates of the curve.
        targets: `(R,)`, of the model.
    """
    counts = np.array(label_counts, dtype=np.float64)
    largest = int(counts[-1])
    weights = 1.0 / np.maximum(accuracies.std(axis=0), SPREAD_MIN) ** 2
    weights /= weights.sum()
    half = len(accuracies) // 2
    by_power = _fit_power(counts, accuracies[:half], weights)(targets[:half])
    by_saturating = _fit_saturating(counts, accuracies[half:], weights)(targets[half:])
    rises = ~np.isnan(by_power)
    if rises.mean() < RISING_MIN:
        return RandomLabels(reason=f"the metric does not increase with random labels yet: up to {largest} were tried")
    limit = EXTRAPOLATION_MAX * largest
    needed = np.minimum(np.concatenate([by_power[rises], by_saturating]), limit)
    low, value, high = (
        float(percentile) for percentile in np.percentile(needed, (PERCENTILES_95[0], 50, PERCENTILES_95[1]))
    )
    if value >= limit:
        return RandomLabels(
            reason=f"random selection needs more than {round(low)} labels; the {largest} labels that "
            "were tried are too few for an upper bound"
        )
    return RandomLabels(labels=Estimate(value=value, low=low, high=high), high_unknown=high >= limit)


def _replicates(
    curve: LearningCurve, correct: npt.NDArray[np.bool_], generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Returns bootstrap replicates of the accuracies of the curve, `(R, S)`, and of the model, `(R,)`."""
    draw_count, _, item_count = curve.correct.shape
    shares = generator.multinomial(item_count, np.full(item_count, 1 / item_count), size=REPLICATES) / item_count
    by_draw = np.einsum("dsm,rm->rds", curve.correct.astype(np.float64), shares)
    drawn = generator.integers(0, draw_count, (REPLICATES, draw_count, 1))
    accuracies = np.take_along_axis(by_draw, drawn, axis=1).mean(axis=1)
    spreads = curve.label_spreads().astype(np.float64)
    # All draws are from the same set of labels, so that their errors are correlated; larger draws have a larger shared error.
    share = np.sqrt(np.array(curve.label_counts) / curve.label_counts[-1])
    luck = generator.standard_normal((REPLICATES, 1)) * share
    own = generator.standard_normal(accuracies.shape) / np.sqrt(draw_count)
    return np.clip(accuracies + (luck + own) * spreads, 0.0, 1.0), shares @ correct.astype(np.float64)


def _fit_power(counts: Floats, accuracies: Floats, weights: Floats) -> Solve:
    """Fits `a − b·n^−c` with `a` at most 1 to each row of `(R, S)`."""
    best = np.full(len(accuracies), np.inf)
    end, slope, exponent = (np.zeros(len(accuracies)) for _ in range(3))
    mean = accuracies @ weights
    for tried in EXPONENTS:
        shrink = counts**-tried
        shrink_mean = float(weights @ shrink)
        slopes = (
            -((accuracies - mean[:, None]) * (shrink - shrink_mean)) @ weights / (weights @ (shrink - shrink_mean) ** 2)
        )
        ends = mean + slopes * shrink_mean
        # Accuracy is at most 1. If the optimum exceeds it, the best constrained curve has its limit at 1.
        slopes = np.where(ends > 1, ((1 - accuracies) * shrink) @ weights / float(weights @ shrink**2), slopes)
        ends = np.minimum(ends, 1.0)
        losses = ((ends[:, None] - slopes[:, None] * shrink - accuracies) ** 2) @ weights
        better = losses < best
        best = np.where(better, losses, best)
        end, slope, exponent = (
            np.where(better, new, old) for new, old in ((ends, end), (slopes, slope), (tried, exponent))
        )

    def solve(targets: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            needed = np.where(end > targets, ((end - targets) / slope) ** (-1 / exponent), np.inf)
        return np.where(slope > 0, np.maximum(needed, 1.0), np.nan)

    return solve


def _fit_saturating(counts: Floats, accuracies: Floats, weights: Floats) -> Solve:
    """Fits `a·(1 − exp(−(n/t)^b))` with `a` at most 1 to each row of `(R, S)`."""
    best = np.full(len(accuracies), np.inf)
    end, scale, shape = (np.ones(len(accuracies)) for _ in range(3))
    for tried_shape in SHAPES:
        for tried_scale in SCALES:
            grown = 1 - np.exp(-((counts / tried_scale) ** tried_shape))
            ends = np.minimum((accuracies * grown) @ weights / float(weights @ grown**2), 1.0)
            losses = ((ends[:, None] * grown - accuracies) ** 2) @ weights
            better = losses < best
            best = np.where(better, losses, best)
            end, scale, shape = (
                np.where(better, new, old) for new, old in ((ends, end), (tried_scale, scale), (tried_shape, shape))
            )

    def solve(targets: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            needed = np.where(end > targets, scale * (-np.log1p(-targets / end)) ** (1 / shape), np.inf)
        return np.maximum(needed, 1.0)

    return solve

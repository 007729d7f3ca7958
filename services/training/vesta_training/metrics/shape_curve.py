"""The learning curve of random labels of shapes in mAP@50 or mIoU, the baseline for active learning. `learning_curve` is that of images.

A point has one fit for each draw of labels and each fold of the test items, which are cross-fitted. The model that is compared with the
curve is fitted with as few steps as the points, because a full training would seem to need more random labels than it does.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from vesta_contracts.training.v1 import Estimate, LearningCurvePoint, RandomLabels

from vesta_training.intervals import PERCENTILES_95
from vesta_training.metrics.draws import DrawnMetric, Floats, Numbers, mean_over_concepts, once
from vesta_training.metrics.random_labels import COUNTS_MIN, solve_curve

REPLICATES = 200
TOO_FEW = (
    "too few randomly drawn labels for a learning curve: more than 40 are required, from the control arm and, if the content hash "
    "assigned the test split, from half of its labels"
)
NO_CONCEPTS = "no item of the test split shows one of the concepts; annotate test items that do"


@dataclass(frozen=True, slots=True)
class ShapeCurve:
    """Predictions of models that learned from random labels.

    Attributes:
        label_counts: `(S,)`, ascending.
        folds: by draw, `(N,)`, the fold of each test item.
        predictions: by draw and count, for all test items, each predicted by the model of its fold.
    """

    label_counts: tuple[int, ...]
    folds: tuple[npt.NDArray[np.int64], ...]
    predictions: tuple[tuple[DrawnMetric, ...], ...]


@dataclass(frozen=True, slots=True)
class Solved:
    """The points of a curve, and the number of random labels for the primary metric of a model."""

    points: tuple[LearningCurvePoint, ...]
    random_labels: RandomLabels


def solve(curve: ShapeCurve | None, model: DrawnMetric | None, *, seed: int) -> Solved:
    """Measures a curve and compares it with a model.

    The replicates draw test items with replacement, the same ones for the curve and the model, and labels by their spread.

    Args:
        curve: None if there are too few labels.
        model: its predictions for the same items.
    """
    if curve is None or model is None:
        return Solved((), RandomLabels(reason=TOO_FEW))
    if not model.true_item_counts.any():
        return Solved((), RandomLabels(reason=NO_CONCEPTS))
    generator = np.random.default_rng(seed)
    item_count = len(model.items)
    drawn_items = generator.multinomial(item_count, np.full(item_count, 1 / item_count), size=REPLICATES)
    whole = once(item_count)
    values = np.nanmean([[_mean(one, whole)[0] for one in draw] for draw in curve.predictions], axis=0)
    replicates = np.nanmean([[_mean(one, drawn_items) for one in draw] for draw in curve.predictions], axis=0).T
    replicates = np.nan_to_num(replicates)
    spreads = _label_spreads(curve)
    # All points are drawn from the same labels, so that their errors are correlated; larger counts share more.
    shared = np.sqrt(np.array(curve.label_counts) / curve.label_counts[-1])
    luck = generator.standard_normal((REPLICATES, 1)) * shared + generator.standard_normal(replicates.shape) * np.sqrt(
        1 - shared**2
    )
    replicates = np.clip(replicates + luck * spreads / np.sqrt(len(curve.predictions)), 0, 1)
    points = tuple(
        LearningCurvePoint(label_count=count, metric=_estimate(float(value), column))
        for count, value, column in zip(curve.label_counts, values, replicates.T, strict=True)
    )
    if len(curve.label_counts) < COUNTS_MIN:
        return Solved(points, RandomLabels(reason=TOO_FEW))
    targets = np.nan_to_num(_mean(model, drawn_items))
    return Solved(points, solve_curve(curve.label_counts, replicates, targets))


def _mean(predictions: DrawnMetric, weights: Numbers) -> Floats:
    return mean_over_concepts(predictions.by_concept(weights))


def _label_spreads(curve: ShapeCurve) -> Floats:
    """Returns `(S,)` standard deviations between models with other labels: those of all folds, each on its own items.

    They differ in the items too, so that the spread is rather too large.
    """
    values = [
        [_mean(one, (fold_of == fold).astype(np.int64)[None])[0] for one in draw]
        for draw, fold_of in zip(curve.predictions, curve.folds, strict=True)
        for fold in np.unique(fold_of)
    ]
    if len(values) < 2:
        return np.zeros(len(values[0]))
    spreads: Floats = np.nan_to_num(np.nanstd(values, axis=0, ddof=1))
    return spreads


def _estimate(value: float, replicates: Floats) -> Estimate:
    low, high = np.percentile(replicates, PERCENTILES_95)
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))

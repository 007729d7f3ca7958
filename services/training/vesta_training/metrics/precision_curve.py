"""The learning curve of random labels in mAP@50, the baseline for active learning of objects; see `learning_curve` for labels of images.

A point has one fit for each draw of labels and each fold of the test items, which are cross-fitted. The model that is compared with the
curve is fitted with as few steps as the points, because a full training would seem to need more random labels than it does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from vesta_contracts.training.v1 import Estimate, LearningCurvePoint, RandomLabels

from vesta_training.intervals import PERCENTILES_95
from vesta_training.metrics.average_precision import drawn_precisions, mean_over_concepts
from vesta_training.metrics.objects import Floats, Matches, Numbers, ObjectPredictions, match_concept
from vesta_training.metrics.random_labels import COUNTS_MIN, solve_curve

REPLICATES = 200
AT_50 = (0,)
TOO_FEW = (
    "too few randomly drawn labels for a learning curve: more than 40 are required, from the control arm and, if the content hash "
    "assigned the test split, from half of its labels"
)


@dataclass(frozen=True, slots=True)
class PrecisionCurve:
    """Predictions of detectors that learned from random labels.

    Attributes:
        label_counts: `(S,)`, ascending.
        folds: by draw, `(N,)`, the fold of each test item.
        predictions: by draw and count, for all test items, each predicted by the detector of its fold.
    """

    label_counts: tuple[int, ...]
    folds: tuple[npt.NDArray[np.int64], ...]
    predictions: tuple[tuple[ObjectPredictions, ...], ...]


@dataclass(frozen=True, slots=True)
class Solved:
    """The points of a curve, and the number of random labels for the mAP of a model."""

    points: tuple[LearningCurvePoint, ...]
    random_labels: RandomLabels


def solve(curve: PrecisionCurve | None, model: ObjectPredictions | None, *, seed: int) -> Solved:
    """Measures a curve and compares it with a model.

    The replicates draw test items with replacement, the same ones for the curve and the model, and labels by their spread.

    Args:
        curve: None if there are too few labels.
        model: its predictions for the same items.
    """
    if curve is None or model is None:
        return Solved((), RandomLabels(reason=TOO_FEW))
    generator = np.random.default_rng(seed)
    item_count = len(model.items)
    drawn_items = generator.multinomial(item_count, np.full(item_count, 1 / item_count), size=REPLICATES)
    once = np.ones((1, item_count), dtype=np.int64)
    matched = [[_matches(predictions) for predictions in draw] for draw in curve.predictions]
    values = np.nanmean([[_mean_precision(one, once)[0] for one in draw] for draw in matched], axis=0)
    replicates = np.nanmean([[_mean_precision(one, drawn_items) for one in draw] for draw in matched], axis=0).T
    replicates = np.nan_to_num(replicates)
    spreads = _label_spreads(matched, curve.folds)
    # All points are drawn from the same labels, so that their errors are correlated; larger counts share more.
    shared = np.sqrt(np.array(curve.label_counts) / curve.label_counts[-1])
    luck = generator.standard_normal((REPLICATES, 1)) * shared + generator.standard_normal(replicates.shape) * np.sqrt(
        1 - shared**2
    )
    replicates = np.clip(replicates + luck * spreads / np.sqrt(len(matched)), 0, 1)
    points = tuple(
        LearningCurvePoint(label_count=count, metric=_estimate(float(value), column))
        for count, value, column in zip(curve.label_counts, values, replicates.T, strict=True)
    )
    if len(curve.label_counts) < COUNTS_MIN:
        return Solved(points, RandomLabels(reason=TOO_FEW))
    targets = np.nan_to_num(_mean_precision(_matches(model), drawn_items))
    return Solved(points, solve_curve(curve.label_counts, replicates, targets))


def _matches(predictions: ObjectPredictions) -> list[Matches]:
    return [match_concept(predictions, number) for number in range(len(predictions.concepts))]


def _mean_precision(matches: Sequence[Matches], weights: Numbers) -> Floats:
    return mean_over_concepts(np.stack([drawn_precisions(one, AT_50, weights) for one in matches]))


def _label_spreads(matched: Sequence[Sequence[Sequence[Matches]]], folds: Sequence[Numbers]) -> Floats:
    """Returns `(S,)` standard deviations between detectors with other labels: those of all folds, each on its own items.

    They differ in the items too, so that the spread is rather too large.
    """
    values = [
        [_mean_precision(one, (fold_of == fold).astype(np.int64)[None])[0] for one in draw]
        for draw, fold_of in zip(matched, folds, strict=True)
        for fold in np.unique(fold_of)
    ]
    if len(values) < 2:
        return np.zeros(len(values[0]))
    spreads: Floats = np.nan_to_num(np.nanstd(values, axis=0, ddof=1))
    return spreads


def _estimate(value: float, replicates: Floats) -> Estimate:
    low, high = np.percentile(replicates, PERCENTILES_95)
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))

"""Evaluates predictions: accuracy, F1, metrics per concept, confusion matrix and calibration, with confidence intervals."""

import numpy as np
import numpy.typing as npt
from vesta_common.intervals import wilson
from vesta_contracts.training.v1 import ConceptMetrics, Metrics, ReliabilityBin

from vesta_training.heads.calibration import log_loss
from vesta_training.heads.logistic_regression import Link
from vesta_training.intervals import bootstrap
from vesta_training.metrics.predictions import Labels, Predictions
from vesta_training.recipes.choices import EvaluationChoices, Task

Floats = npt.NDArray[np.float64]

# The confusion matrix of so many concepts has about a megabyte, which messages and rows can still contain.
CONCEPTS_FOR_CONFUSION_MAX = 1000


def measure(predictions: Predictions, choices: EvaluationChoices, *, seed: int) -> Metrics:
    """Computes all metrics of the predictions, with 95 % intervals.

    Precision is unset for a concept that is never predicted, recall for a concept without items, and F1 if both apply. The intervals of
    precision and recall are Wilson's.

    Raises:
        ValueError: there are no predictions.
    """
    truth, predicted = predictions.truth, predictions.predicted
    item_count = len(predictions.items)
    hits = (truth & predicted).sum(axis=0)
    positive_counts, predicted_counts = truth.sum(axis=0), predicted.sum(axis=0)
    concepts = []
    for index, concept in enumerate(predictions.concepts):
        metrics = ConceptMetrics(concept=concept, item_count=int(positive_counts[index]))
        if positive_counts[index] or predicted_counts[index]:
            metrics.f1 = 2 * float(hits[index]) / int(positive_counts[index] + predicted_counts[index])
        if predicted_counts[index]:
            metrics.precision.CopyFrom(wilson(int(hits[index]), int(predicted_counts[index])))
        if positive_counts[index]:
            metrics.recall.CopyFrom(wilson(int(hits[index]), int(positive_counts[index])))
        concepts.append(metrics)
    link: Link = "softmax" if predictions.task is Task.CLASSIFICATION else "sigmoid"
    bins = reliability(predictions, choices.calibration_bins)
    patterns, counts = np.unique(np.concatenate([truth, predicted], axis=1), axis=0, return_counts=True)
    return Metrics(
        item_count=item_count,
        accuracy=wilson(int(predictions.right.sum()), item_count),
        macro_f1=bootstrap(
            counts,
            lambda drawn: _macro_f1(patterns, drawn),
            draws=choices.bootstrap_draws,
            generator=np.random.default_rng(seed),
        ),
        concepts=concepts,
        confusion=_confusion(predictions),
        calibration_error=calibration_error(bins),
        reliability=bins,
        log_loss=log_loss(predictions.probabilities, truth, link),
    )


def reliability(predictions: Predictions, bin_count: int) -> list[ReliabilityBin]:
    """Returns the accuracy by confidence, in bins of equal width over [0, 1]. The values of empty bins are unset.

    The confidence of a classification is its highest probability. For multi-label, each probability of a concept counts separately,
    and its accuracy is the share of items that have the concept.
    """
    if predictions.task is Task.CLASSIFICATION:
        confidence, right = predictions.probabilities.max(axis=1, initial=0.0), predictions.right
    else:
        confidence, right = predictions.probabilities.ravel(), predictions.truth.ravel()
    edges = np.linspace(0, 1, bin_count + 1)
    member = np.clip(np.digitize(confidence, edges) - 1, 0, bin_count - 1)
    counts = np.bincount(member, minlength=bin_count)
    confidences = np.bincount(member, weights=confidence, minlength=bin_count)
    rights = np.bincount(member, weights=right.astype(np.float64), minlength=bin_count)
    return [
        ReliabilityBin(
            confidence_low=edges[index],
            confidence_high=edges[index + 1],
            item_count=int(counts[index]),
            mean_confidence=confidences[index] / counts[index] if counts[index] else None,
            accuracy=rights[index] / counts[index] if counts[index] else None,
        )
        for index in range(bin_count)
    ]


def calibration_error(bins: list[ReliabilityBin]) -> float:
    """Returns the expected calibration error: the mean distance between confidence and accuracy, weighted by the items of the bins."""
    total = sum(entry.item_count for entry in bins)
    return sum(
        reliability_bin.item_count * abs(reliability_bin.mean_confidence - reliability_bin.accuracy)
        for reliability_bin in bins
    ) / max(1, total)


def _macro_f1(patterns: Labels, counts: Floats) -> Floats:
    """Returns `(B,)` mean F1 of the concepts that occur in the truth or in the predictions.

    Args:
        patterns: `(K, 2C)`: truth, predicted.
        counts: `(B, K)`.
    """
    truth, predicted = np.split(patterns, 2, axis=1)
    hits = counts @ (truth & predicted)
    mentions = counts @ (truth.astype(np.float64) + predicted)
    f1 = np.divide(2 * hits, mentions, out=np.zeros_like(hits), where=mentions > 0)
    mean: Floats = f1.sum(axis=1) / np.maximum(1, (mentions > 0).sum(axis=1))
    return mean


def _confusion(predictions: Predictions) -> list[int]:
    """Returns the row-major `(C, C)` matrix of true by predicted concept. Empty for multi-label and for too many concepts."""
    if predictions.task is not Task.CLASSIFICATION or len(predictions.concepts) > CONCEPTS_FOR_CONFUSION_MAX:
        return []
    table = predictions.truth.astype(np.int64).T @ predictions.predicted.astype(np.int64)
    return [int(count) for count in table.ravel()]

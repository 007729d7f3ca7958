"""Evaluates predictions: accuracy, F1, metrics per concept, confusion matrix and calibration, with confidence intervals."""

import numpy as np
import numpy.typing as npt
from vesta_contracts.training.v1 import ConceptMetrics, Metrics, ReliabilityBin

from vesta_training.heads.calibration import log_loss
from vesta_training.heads.logistic_regression import Link
from vesta_training.intervals import bootstrap, wilson
from vesta_training.metrics.predictions import Answers, Labels
from vesta_training.recipes.recipe import EvaluationChoices, Task

Floats = npt.NDArray[np.float64]

# The confusion matrix of so many concepts has about a megabyte, which messages and rows can still contain.
CONCEPTS_FOR_CONFUSION_MAX = 1000


def measure(answers: Answers, choices: EvaluationChoices, *, seed: int) -> Metrics:
    """Computes all metrics of the predictions, with 95 % intervals.

    Precision is unset for a concept that is never predicted, recall for a concept without items, and F1 if both apply. The intervals of
    precision and recall are Wilson's.

    Raises:
        ValueError: there are no predictions.
    """
    truth, predicted = answers.truth, answers.predicted
    item_count = len(answers.items)
    hits = (truth & predicted).sum(axis=0)
    borne, answered = truth.sum(axis=0), predicted.sum(axis=0)
    concepts = []
    for index, concept in enumerate(answers.concepts):
        metrics = ConceptMetrics(concept=concept, item_count=int(borne[index]))
        if borne[index] or answered[index]:
            metrics.f1 = 2 * float(hits[index]) / int(borne[index] + answered[index])
        if answered[index]:
            metrics.precision.CopyFrom(wilson(int(hits[index]), int(answered[index])))
        if borne[index]:
            metrics.recall.CopyFrom(wilson(int(hits[index]), int(borne[index])))
        concepts.append(metrics)
    link: Link = "softmax" if answers.task is Task.CLASSIFICATION else "sigmoid"
    bins = reliability(answers, choices.calibration_bins)
    patterns, counts = np.unique(np.concatenate([truth, predicted], axis=1), axis=0, return_counts=True)
    return Metrics(
        item_count=item_count,
        accuracy=wilson(int(answers.right.sum()), item_count),
        macro_f1=bootstrap(
            counts,
            lambda drawn: _macro_f1(patterns, drawn),
            draws=choices.bootstrap_draws,
            generator=np.random.default_rng(seed),
        ),
        concepts=concepts,
        confusion=_confusion(answers),
        calibration_error=calibration_error(bins),
        reliability=bins,
        log_loss=log_loss(answers.probabilities, truth, link),
    )


def reliability(answers: Answers, bin_count: int) -> list[ReliabilityBin]:
    """Returns the accuracy by confidence, in bins of equal width over [0, 1]. The values of empty bins are unset.

    The confidence of a classification is its highest probability. For multi-label, each probability of a concept counts separately,
    and its accuracy is the share of items that have the concept.
    """
    if answers.task is Task.CLASSIFICATION:
        confidence, right = answers.probabilities.max(axis=1, initial=0.0), answers.right
    else:
        confidence, right = answers.probabilities.ravel(), answers.truth.ravel()
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
    total = sum(one.item_count for one in bins)
    return sum(one.item_count * abs(one.mean_confidence - one.accuracy) for one in bins) / max(1, total)


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


def _confusion(answers: Answers) -> list[int]:
    """Returns the row-major `(C, C)` matrix of true by predicted concept. Empty for multi-label and for too many concepts."""
    if answers.task is not Task.CLASSIFICATION or len(answers.concepts) > CONCEPTS_FOR_CONFUSION_MAX:
        return []
    table = answers.truth.astype(np.int64).T @ answers.predicted.astype(np.int64)
    return [int(count) for count in table.ravel()]

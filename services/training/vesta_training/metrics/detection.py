"""Evaluates objects: mAP, metrics per concept at the deployed thresholds, and calibration, with bootstrap intervals over images."""

from collections.abc import Sequence

import numpy as np
from vesta_contracts.training.v1 import Comparison, ConceptMetrics, Estimate, Metrics, ReliabilityBin

from vesta_training.intervals import bootstrap
from vesta_training.metrics.average_precision import ALL_IOUS, MatchedPredictions, average_precisions
from vesta_training.metrics.draws import (
    Floats,
    Numbers,
    check_comparable,
    compare,
    draw_items,
    estimate,
    interval,
    mean_over_concepts,
)
from vesta_training.metrics.evaluation import calibration_error
from vesta_training.metrics.objects import IOUS, Matches, ObjectPredictions
from vesta_training.recipes.choices import EvaluationChoices

PROBABILITY_MIN = 1e-7


def measure_objects(predictions: ObjectPredictions, choices: EvaluationChoices, *, seed: int) -> Metrics:
    """Computes all metrics of the predictions, with 95 % intervals.

    Raises:
        ValueError: there are no items.
    """
    generator = np.random.default_rng(seed)
    matched = MatchedPredictions.of(predictions)
    at_50 = [one.at_50 for one in matched.matches]
    values = average_precisions(predictions)
    draws = draw_items(len(predictions.items), matched.found_count, choices.bootstrap_draws, generator)
    fewer = draws[: max(1, len(draws) // len(IOUS))]
    metrics = Metrics(
        item_count=len(predictions.items),
        object_count=sum(int(one.truth_counts.sum()) for one in at_50),
        concepts=[
            _concept(concept, one, threshold, choices, generator)
            for concept, one, threshold in zip(predictions.concepts, at_50, predictions.thresholds, strict=True)
        ],
        reliability=_reliability(at_50, choices.calibration_bins),
        log_loss=_log_loss(at_50),
    )
    metrics.calibration_error = calibration_error(list(metrics.reliability))
    if not np.isnan(values.at_50).all():
        drawn_50 = mean_over_concepts(matched.by_concept(draws))
        drawn_all = mean_over_concepts(matched.by_concept(fewer, ALL_IOUS))
        metrics.mean_average_precision_50.CopyFrom(interval(float(np.nanmean(values.at_50)), drawn_50))
        metrics.mean_average_precision.CopyFrom(interval(float(np.nanmean(values.by_area[0])), drawn_all))
    for area, row in zip(("small", "medium", "large"), values.by_area[1:], strict=True):
        if not np.isnan(row).all():
            setattr(metrics, f"mean_average_precision_{area}", float(np.nanmean(row)))
    for concept, at_50, over_all in zip(metrics.concepts, values.at_50, values.by_area[0], strict=True):
        if not np.isnan(at_50):
            concept.average_precision_50, concept.average_precision = float(at_50), float(over_all)
    return metrics


def compare_objects(
    challenger: ObjectPredictions,
    champion: ObjectPredictions,
    choices: EvaluationChoices,
    *,
    champion_name: str,
    seed: int,
) -> Comparison:
    """Returns the differences in mAP@50, see `draws.compare`, and the metrics of the champion.

    Raises:
        ValueError: the items or concepts differ.
    """
    check_comparable(challenger, champion)
    own, other = MatchedPredictions.of(challenger), MatchedPredictions.of(champion)
    return compare(
        own,
        other,
        _draws(own, choices, seed, found_count=own.found_count + other.found_count),
        champion_name=champion_name,
        champion_metrics=measure_objects(champion, choices, seed=seed),
    )


def mean_precision_50(predictions: ObjectPredictions, choices: EvaluationChoices, *, seed: int) -> Estimate | None:
    """Returns mAP@50 alone, with its interval; None without true objects."""
    matched = MatchedPredictions.of(predictions)
    return estimate(matched, _draws(matched, choices, seed, found_count=matched.found_count))


def _draws(matched: MatchedPredictions, choices: EvaluationChoices, seed: int, *, found_count: int) -> Numbers:
    return draw_items(len(matched.items), found_count, choices.bootstrap_draws, np.random.default_rng(seed))


def _concept(
    concept: str, matches: Matches, threshold: float, choices: EvaluationChoices, generator: np.random.Generator
) -> ConceptMetrics:
    """Returns precision, recall and F1 of objects at the threshold, matched with an IoU of at least 0.5."""
    item_count = len(matches.truth_counts)
    predicted = matches.scores >= threshold
    predicted_counts = np.bincount(matches.items[predicted], minlength=item_count).astype(np.float64)
    hit_counts = np.bincount(matches.items[predicted & matches.hits[0]], minlength=item_count).astype(np.float64)
    truth_counts = matches.truth_counts.astype(np.float64)
    metrics = ConceptMetrics(
        concept=concept, item_count=int((truth_counts > 0).sum()), object_count=int(truth_counts.sum())
    )

    def share(of: Floats) -> Estimate:
        whole = float(hit_counts.sum() / of.sum())
        ones = np.ones(item_count, dtype=np.int64)

        def statistic(counts: Floats) -> Floats:
            total = counts @ of
            shares: Floats = np.divide(counts @ hit_counts, total, out=np.full(len(total), whole), where=total > 0)
            return shares

        return bootstrap(ones, statistic, draws=choices.bootstrap_draws, generator=generator)

    if predicted_counts.any():
        metrics.precision.CopyFrom(share(predicted_counts))
    if truth_counts.any():
        metrics.recall.CopyFrom(share(truth_counts))
    if predicted_counts.any() or truth_counts.any():
        metrics.f1 = 2 * float(hit_counts.sum()) / float(predicted_counts.sum() + truth_counts.sum())
    return metrics


def _reliability(matches: Sequence[Matches], bin_count: int) -> list[ReliabilityBin]:
    """Returns by score the share of found objects that match a true one with an IoU of at least 0.5. Counts are of objects."""
    scores = np.concatenate([one.scores for one in matches])
    hits = np.concatenate([one.hits[0] for one in matches]).astype(np.float64)
    edges = np.linspace(0, 1, bin_count + 1)
    member = np.clip(np.digitize(scores, edges) - 1, 0, bin_count - 1)
    counts, sums, rights = (
        np.bincount(member, weights=weights, minlength=bin_count) for weights in (np.ones(len(scores)), scores, hits)
    )
    return [
        ReliabilityBin(
            confidence_low=edges[index],
            confidence_high=edges[index + 1],
            item_count=int(counts[index]),
            mean_confidence=sums[index] / counts[index] if counts[index] else None,
            accuracy=rights[index] / counts[index] if counts[index] else None,
        )
        for index in range(bin_count)
    ]


def _log_loss(matches: Sequence[Matches]) -> float:
    """Returns the mean log loss of the scores of found objects, which predict whether they match a true one."""
    scores = np.concatenate([one.scores for one in matches]).clip(PROBABILITY_MIN, 1 - PROBABILITY_MIN)
    hits = np.concatenate([one.hits[0] for one in matches])
    return float(-np.where(hits, np.log(scores), np.log1p(-scores)).mean()) if len(scores) else 0.0

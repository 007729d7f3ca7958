"""Evaluates objects: mAP, metrics per concept at the deployed thresholds, and calibration, with bootstrap intervals over images."""

from collections.abc import Sequence

import numpy as np
from vesta_contracts.training.v1 import Comparison, ConceptComparison, ConceptMetrics, Estimate, Metrics, ReliabilityBin

from vesta_training.intervals import PERCENTILES_95, bootstrap
from vesta_training.metrics.average_precision import (
    average_precisions,
    draw_items,
    drawn_precisions,
    interval,
    mean_over_concepts,
)
from vesta_training.metrics.evaluation import calibration_error
from vesta_training.metrics.objects import IOUS, Floats, Matches, Numbers, ObjectPredictions, match_concept
from vesta_training.recipes.choices import EvaluationChoices

AT_50 = (0,)
ALL_IOUS = tuple(range(len(IOUS)))
PROBABILITY_MIN = 1e-7


def measure_objects(predictions: ObjectPredictions, choices: EvaluationChoices, *, seed: int) -> Metrics:
    """Computes all metrics of the predictions, with 95 % intervals.

    Raises:
        ValueError: there are no items.
    """
    generator = np.random.default_rng(seed)
    matches = _all_matches(predictions)
    values = average_precisions(predictions)
    found_count = sum(len(one.scores) for one in matches)
    draws = draw_items(len(predictions.items), found_count, choices.bootstrap_draws, generator)
    fewer = draws[: max(1, len(draws) // len(IOUS))]
    metrics = Metrics(
        item_count=len(predictions.items),
        object_count=sum(len(truth.scores) for truth in predictions.truth),
        concepts=[
            _concept(concept, one, threshold, choices, generator)
            for concept, one, threshold in zip(predictions.concepts, matches, predictions.thresholds, strict=True)
        ],
        reliability=_reliability(matches, choices.calibration_bins),
        log_loss=_log_loss(matches),
    )
    metrics.calibration_error = calibration_error(list(metrics.reliability))
    if not np.isnan(values.at_50).all():
        drawn_50, drawn_all = _drawn(matches, AT_50, draws), _drawn(matches, ALL_IOUS, fewer)
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
    """Returns the differences in mAP@50 (challenger minus champion), overall and by concept, and the metrics of the champion.

    Both models are evaluated on the same draws of items (paired bootstrap). The intervals of the concepts hold jointly.

    Raises:
        ValueError: the items or concepts differ.
    """
    if challenger.items != champion.items or challenger.concepts != champion.concepts:
        raise ValueError("a comparison requires predictions of both models for the same items and concepts")
    generator = np.random.default_rng(seed)
    own, other = _all_matches(challenger), _all_matches(champion)
    found_count = sum(len(one.scores) for one in (*own, *other))
    draws = draw_items(len(challenger.items), found_count, choices.bootstrap_draws, generator)
    once = np.ones((1, len(challenger.items)), dtype=np.int64)
    own_drawn, other_drawn = _by_concept(own, AT_50, draws), _by_concept(other, AT_50, draws)
    own_once, other_once = _by_concept(own, AT_50, once), _by_concept(other, AT_50, once)
    concepts = []
    for index, concept in enumerate(challenger.concepts):
        compared = ConceptComparison(concept=concept, item_count=int((own[index].truth_counts > 0).sum()))
        if compared.item_count:
            value = float(own_once[index, 0] - other_once[index, 0])
            outside = PERCENTILES_95[0] / len(challenger.concepts)
            compared.difference.CopyFrom(interval(value, own_drawn[index] - other_drawn[index], outside))
        concepts.append(compared)
    comparison = Comparison(
        champion=champion_name,
        champion_metrics=measure_objects(champion, choices, seed=seed),
        concepts=concepts,
    )
    value = float(mean_over_concepts(own_once)[0] - mean_over_concepts(other_once)[0])
    if not np.isnan(value):
        drawn = mean_over_concepts(own_drawn) - mean_over_concepts(other_drawn)
        comparison.difference.CopyFrom(interval(value, drawn))
    return comparison


def mean_precision_50(predictions: ObjectPredictions, choices: EvaluationChoices, *, seed: int) -> Estimate | None:
    """Returns mAP@50 alone, with its interval; None without true objects."""
    matches = _all_matches(predictions)
    found_count = sum(len(one.scores) for one in matches)
    draws = draw_items(len(predictions.items), found_count, choices.bootstrap_draws, np.random.default_rng(seed))
    once = np.ones((1, len(predictions.items)), dtype=np.int64)
    value = float(_drawn(matches, AT_50, once)[0])
    return None if np.isnan(value) else interval(value, _drawn(matches, AT_50, draws))


def _all_matches(predictions: ObjectPredictions) -> list[Matches]:
    return [match_concept(predictions, number) for number in range(len(predictions.concepts))]


def _by_concept(matches: Sequence[Matches], rows: Sequence[int], draws: Numbers) -> Floats:
    return np.stack([drawn_precisions(one, rows, draws) for one in matches])


def _drawn(matches: Sequence[Matches], rows: Sequence[int], draws: Numbers) -> Floats:
    return mean_over_concepts(_by_concept(matches, rows, draws))


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

"""Primary metrics on draws of items with replacement: intervals, and the paired comparison of models with boxes, masks or maps."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from vesta_contracts.training.v1 import Comparison, Estimate, Metrics

from vesta_training.intervals import PERCENTILES_95

# The time of a bootstrap is proportional to the number of objects in all draws.
DRAWN_OBJECTS_MAX = 20_000_000
DRAWS_MIN = 200

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


class OfItems(Protocol):
    """Predictions for items, over concepts."""

    @property
    def items(self) -> Sequence[str]:
        """The items, in the order of the weights of draws."""
        ...

    @property
    def concepts(self) -> Sequence[str]:
        """The concepts, in the order of their numbers."""
        ...


class DrawnMetric(OfItems, Protocol):
    """Predictions whose primary metric is a mean over concepts."""

    @property
    def true_item_counts(self) -> Numbers:
        """`(C,)`, the number of items that truly show each concept."""
        ...

    def by_concept(self, weights: Numbers) -> Floats:
        """Returns `(C, B)`, the metric of each concept in each draw of items; NaN where nothing can be measured.

        Args:
            weights: `(B, N)`, how often each item is drawn.
        """
        ...


def once(item_count: int) -> Numbers:
    """Returns `(1, N)`, the draw that has each item once."""
    return np.ones((1, item_count), dtype=np.int64)


def draw_items(item_count: int, object_count: int, draws: int, generator: np.random.Generator) -> Numbers:
    """Returns `(B, N)`, how often each item is in each draw with replacement. Fewer draws for very many objects."""
    draws = max(DRAWS_MIN, min(draws, DRAWN_OBJECTS_MAX // max(1, object_count)))
    return generator.multinomial(item_count, np.full(item_count, 1 / item_count), size=draws)


def mean_over_concepts(drawn: Floats) -> Floats:
    """Returns the mean over the concepts, `(C, B)` → `(B,)`, of those that can be measured; NaN if there are none."""
    known = ~np.isnan(drawn)
    total = np.where(known, drawn, 0).sum(axis=0)
    mean: Floats = np.divide(total, known.sum(axis=0), out=np.full(drawn.shape[1], np.nan), where=known.any(axis=0))
    return mean


def interval(value: float, drawn: Floats, outside: float = PERCENTILES_95[0]) -> Estimate:
    """Returns a value with the percentile interval of its draws, of which those without objects are left out.

    Args:
        outside: percentage of the draws below and above the interval.
    """
    known = drawn[~np.isnan(drawn)]
    low, high = np.percentile(known, (outside, 100 - outside)) if len(known) else (value, value)
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))


def estimate(predictions: DrawnMetric, draws: Numbers) -> Estimate | None:
    """Returns the primary metric with its interval; None if it cannot be measured."""
    value = float(mean_over_concepts(predictions.by_concept(once(len(predictions.items))))[0])
    return None if np.isnan(value) else interval(value, mean_over_concepts(predictions.by_concept(draws)))


def check_comparable(challenger: OfItems, champion: OfItems) -> None:
    """Raises ValueError if the predictions are for other items or over other concepts."""
    if (challenger.items, challenger.concepts) != (champion.items, champion.concepts):
        raise ValueError("a comparison requires predictions of both models for the same items and concepts")


def compare(
    challenger: DrawnMetric, champion: DrawnMetric, draws: Numbers, *, champion_name: str, champion_metrics: Metrics
) -> Comparison:
    """Returns the differences in the primary metric (challenger minus champion), overall and by concept.

    Both models are evaluated on the same draws of items (paired bootstrap), over the concepts that items truly show, so that both means
    are over the same ones. The intervals of the concepts hold jointly.

    Args:
        champion: comparable, see `check_comparable`.
        draws: see `draw_items`.
    """
    whole, counts = once(len(challenger.items)), challenger.true_item_counts
    values = [one.by_concept(whole) for one in (challenger, champion)]
    drawn = [one.by_concept(draws) for one in (challenger, champion)]
    comparison = Comparison(champion=champion_name, champion_metrics=champion_metrics)
    outside = PERCENTILES_95[0] / len(challenger.concepts)
    for index, (concept, count) in enumerate(zip(challenger.concepts, counts.tolist(), strict=True)):
        compared = comparison.concepts.add(concept=concept, item_count=count)
        if count:
            value = float(values[0][index, 0] - values[1][index, 0])
            compared.difference.CopyFrom(interval(value, drawn[0][index] - drawn[1][index], outside))
    true = counts > 0
    if true.any():
        own, other = (mean_over_concepts(one[true]) for one in values)
        own_drawn, other_drawn = (mean_over_concepts(one[true]) for one in drawn)
        comparison.difference.CopyFrom(interval(float(own[0] - other[0]), own_drawn - other_drawn))
    return comparison

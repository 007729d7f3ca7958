"""Krippendorff's alpha of several annotators: 1 is perfect agreement, 0 is chance, below 0 is worse than chance. Pure.

K. Krippendorff, Content Analysis, 4th ed., 2019, §12.3.
"""

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import combinations
from typing import TypeVar

T = TypeVar("T")

PAIRS_MAX = 2000
"""The number of random pairs of answers that chance is estimated from."""


def distance_alpha(
    units: Iterable[Sequence[T]],
    distance: Callable[[T, T], float],
    is_empty: Callable[[T], bool] = lambda _: False,
    pairs_max: int = PAIRS_MAX,
) -> float | None:
    """Returns alpha for values with a distance in [0, 1].

    The distance that chance leads to is the mean over pairs of answers. Of pairs without an empty answer, at most `pairs_max` random ones
    are compared.

    Args:
        units: the answers to each task, at least two per task.
        distance: 0 for two empty answers, and 1 for an empty and another one.

    Returns:
        None for fewer than two tasks; 1 if all values are equal.
    """
    shared = [list(values) for values in units]
    if len(shared) < 2:
        return None
    values = [value for unit in shared for value in unit]
    observed = sum(
        2 * sum(distance(one, other) for one, other in combinations(unit, 2)) / (len(unit) - 1) for unit in shared
    ) / len(values)
    filled = [value for value in values if not is_empty(value)]
    expected = [distance(one, other) for one, other in _pairs(filled, pairs_max)]
    pair_count = len(filled) * (len(filled) - 1) / 2
    total = sum(expected) / len(expected) * pair_count if expected else 0.0
    total += len(filled) * (len(values) - len(filled))  # pairs of an empty answer and another one
    chance = total / (len(values) * (len(values) - 1) / 2)
    return 1 - observed / chance if chance else 1.0


def _pairs(values: Sequence[T], pairs_max: int) -> Iterable[tuple[T, T]]:
    if len(values) * (len(values) - 1) // 2 <= pairs_max:
        return combinations(values, 2)
    draw = random.Random(0)  # noqa: S311 - the same pairs for the same answers
    indices = (draw.sample(range(len(values)), 2) for _ in range(pairs_max))
    return ((values[one], values[other]) for one, other in indices)


def nominal_alpha(units: Iterable[Iterable[Hashable]]) -> float | None:
    """Returns alpha for nominal values.

    Takes time linear in the number of answers. A coincidence table would need a cell for each pair of values.

    Args:
        units: the answers to each task, at least two per task.

    Returns:
        None for fewer than two tasks; 1 if all values are equal.
    """
    counts = [Counter(values) for values in units]
    if len(counts) < 2:
        return None
    totals: Counter[Hashable] = Counter()
    for count in counts:
        totals.update(count)
    value_count = totals.total()
    observed = sum(_unequal_pairs(count) / (count.total() - 1) for count in counts) / value_count
    expected = _unequal_pairs(totals) / (value_count * (value_count - 1))
    return 1 - observed / expected if expected else 1.0


def _unequal_pairs(counts: Counter[Hashable]) -> int:
    """Returns the number of ordered pairs of different values."""
    return counts.total() ** 2 - sum(count**2 for count in counts.values())

"""95 % confidence intervals of metrics."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from vesta_contracts.training.v1 import Estimate

PERCENTILES_95 = (2.5, 97.5)
# Size limit of one chunk of bootstrap draws, in numbers.
DRAWN_NUMBERS_MAX = 4_000_000
# Extreme percentiles need more draws: at least so many draws must lie beyond the percentile, up to DRAWS_MAX.
DRAWS_BEYOND = 10
DRAWS_MAX = 100_000
# Jeffreys' prior of half an observation, so that the interval of one or two items is not too narrow.
JEFFREYS = 0.5

Counts = npt.NDArray[np.int64]


def bootstrap(
    pattern_counts: Counts,
    statistic: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    *,
    draws: int,
    generator: np.random.Generator,
) -> Estimate:
    """Returns a statistic with its percentile bootstrap interval.

    Items with the same result are counted as one pattern. Resampling items is then a multinomial draw of patterns, which has the
    same distribution and needs less memory.

    Args:
        pattern_counts: `(K,)`, the number of items of each pattern.
        statistic: maps counts `(B, K)` to values `(B,)`.

    Raises:
        ValueError: there are no items.
    """
    total = int(pattern_counts.sum())
    if total == 0:
        raise ValueError("a statistic requires at least one value")
    value = float(statistic(pattern_counts[None].astype(np.float64))[0])
    per_turn = max(1, DRAWN_NUMBERS_MAX // len(pattern_counts))
    values = [
        statistic(
            generator.multinomial(total, pattern_counts / total, size=min(per_turn, draws - done)).astype(np.float64)
        )
        for done in range(0, draws, per_turn)
    ]
    low, high = np.percentile(np.concatenate(values), PERCENTILES_95)
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))


def paired_difference(
    wins: int, losses: int, ties: int, *, draws: int, generator: np.random.Generator, intervals_together: int = 1
) -> Estimate:
    """Returns the difference in accuracy of two models on the same items.

    The interval is the Bayesian bootstrap (Rubin 1981) of wins, losses and ties with Jeffreys' prior on wins and losses. For many
    items it equals the usual paired bootstrap; for very few items it is wide enough to be inconclusive.

    Args:
        wins: items that only the first model predicts correctly.
        losses: items that only the second model predicts correctly.
        ties: all other items.
        draws: minimum number of draws.
        intervals_together: number of intervals that must hold jointly with 95 % (Bonferroni correction).

    Raises:
        ValueError: there are no items.
    """
    total = wins + losses + ties
    if total == 0:
        raise ValueError("a difference requires at least one item")
    value = (wins - losses) / total
    outside = PERCENTILES_95[0] / intervals_together
    draws = max(draws, min(DRAWS_MAX, int(100 / outside * DRAWS_BEYOND)))
    shares = generator.dirichlet([wins + JEFFREYS, losses + JEFFREYS, ties + JEFFREYS], size=draws)
    low, high = np.percentile(shares[:, 0] - shares[:, 1], (outside, 100 - outside))
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))

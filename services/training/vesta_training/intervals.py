"""How sure a figure is: the 95 % intervals that every measurement carries."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from vesta_contracts.training.v1 import Estimate

Z_95 = 1.959963984540054
PERCENTILES_95 = (2.5, 97.5)
# Numbers held at once while drawing; more are drawn in turns.
DRAWN_NUMBERS_MAX = 4_000_000
# A percentile far out needs more draws: so many are to lie beyond it, as far as the draws may be many.
DRAWS_BEYOND = 10
DRAWS_MAX = 100_000
# Jeffreys' prior of half an observation: an interval from one or two items stays honest instead of having no width.
JEFFREYS = 0.5

Counts = npt.NDArray[np.int64]


def wilson(successes: int, trials: int) -> Estimate:
    """A share with Wilson's score interval (1927), which holds for few trials and near 0 and 1.

    Raises:
        ValueError: there are no trials.
    """
    if trials <= 0:
        raise ValueError("a share of nothing is not known")
    share = successes / trials
    centre = (share + Z_95**2 / (2 * trials)) / (1 + Z_95**2 / trials)
    half = Z_95 / (1 + Z_95**2 / trials) * (share * (1 - share) / trials + Z_95**2 / (4 * trials**2)) ** 0.5
    return Estimate(value=share, low=max(0.0, min(centre - half, share)), high=min(1.0, max(centre + half, share)))


def bootstrap(
    pattern_counts: Counts,
    statistic: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    *,
    draws: int,
    generator: np.random.Generator,
) -> Estimate:
    """A statistic with its percentile bootstrap interval.

    Items that fared alike are one pattern, and drawing items again is a multinomial draw of patterns: the same
    distribution for a fraction of the numbers.

    Args:
        pattern_counts: `(K,)`, how many items show each pattern.
        statistic: from counts `(B, K)` to values `(B,)`.

    Raises:
        ValueError: there are no items.
    """
    total = int(pattern_counts.sum())
    if total == 0:
        raise ValueError("a statistic of nothing is not known")
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
    """Share of items only the first got right less that of items only the second did, on the same items.

    The interval is the Bayesian bootstrap (Rubin 1981) of wins, losses and ties with Jeffreys' prior on the first two:
    for many items the usual paired bootstrap, for one lost item out of one wide enough to prove nothing.

    Args:
        draws: at least so many.
        intervals_together: how many intervals are to hold all together with 95 % (Bonferroni); each is the wider for it.

    Raises:
        ValueError: there are no items.
    """
    total = wins + losses + ties
    if total == 0:
        raise ValueError("a difference on no items is not known")
    value = (wins - losses) / total
    outside = PERCENTILES_95[0] / intervals_together
    draws = max(draws, min(DRAWS_MAX, int(100 / outside * DRAWS_BEYOND)))
    shares = generator.dirichlet([wins + JEFFREYS, losses + JEFFREYS, ties + JEFFREYS], size=draws)
    low, high = np.percentile(shares[:, 0] - shares[:, 1], (outside, 100 - outside))
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))

"""Confidence intervals of proportions. Pure."""

from vesta_contracts.training.v1 import Estimate

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution: 95 % lie within so many standard deviations."""


def wilson(successes: int, trials: int) -> Estimate:
    """Returns a proportion with its 95 % Wilson score interval (1927), which is valid for few trials and near 0 and 1.

    Raises:
        ValueError: the number of trials is not positive.
    """
    if trials <= 0:
        raise ValueError("a share requires at least one trial")
    share = successes / trials
    centre = (share + Z_95**2 / (2 * trials)) / (1 + Z_95**2 / trials)
    half = Z_95 / (1 + Z_95**2 / trials) * (share * (1 - share) / trials + Z_95**2 / (4 * trials**2)) ** 0.5
    return Estimate(value=share, low=max(0.0, min(centre - half, share)), high=min(1.0, max(centre + half, share)))

"""The order of items by the uncertainty of the model."""

import numpy as np

from vesta_datasets.selection.pool import Floats, Indices


def most_uncertain(uncertainty: Floats, free: Indices, count: int, seed: int) -> Indices:
    """Returns the `count` rows of `free` with the highest uncertainty, highest first. Ties are in random order, not by age.

    Args:
        uncertainty: `(N,)`.
        free: rows to pick from.
    """
    lot = np.random.default_rng(seed).permutation(free.size)
    order = np.lexsort((lot, -uncertainty[free]))
    return free[order[:count]]

"""The `random` strategy: the baseline for all other strategies."""

import numpy as np

from vesta_datasets.selection.pool import Pick, Pool, Reason


def at_random(pool: Pool) -> list[Pick]:
    """Draws uniformly without replacement from the unlabelled items. Every score is 0."""
    chosen = np.random.default_rng(pool.seed).choice(pool.free, size=pool.pick_count, replace=False)
    return [Pick(int(index), 0.0, Reason.RANDOM) for index in chosen]

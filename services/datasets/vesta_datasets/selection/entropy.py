"""The `entropy` strategy: the items whose predictions have the highest entropy."""

from vesta_datasets.selection.at_random import at_random
from vesta_datasets.selection.pool import Pick, Pool, Reason
from vesta_datasets.selection.uncertainty import most_uncertain


def entropy(pool: Pool) -> list[Pick]:
    """Picks the items with the highest entropy. Before the first model, picks are random and have that reason.

    The strategy is provided because it is well known. With few labels it is often worse than random.
    """
    if pool.uncertainty is None:
        return at_random(pool)
    unsure = pool.uncertainty.entropy
    chosen = most_uncertain(unsure, pool.free, pool.pick_count, pool.seed)
    return [Pick(int(index), float(unsure[index]), Reason.CONFUSED) for index in chosen]

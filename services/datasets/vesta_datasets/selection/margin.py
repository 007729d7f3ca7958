"""The `margin` strategy: the items with the smallest margin between the two most probable concepts."""

from vesta_datasets.selection.at_random import at_random
from vesta_datasets.selection.pool import Pick, Pool, Reason
from vesta_datasets.selection.uncertainty import most_uncertain


def margin(pool: Pool) -> list[Pick]:
    """Picks the items with the smallest margin (Scheffer et al., 2001). Before the first model, picks are random and have that reason."""
    if pool.probabilities is None:
        return at_random(pool)
    unsure = pool.task.margin_uncertainty(pool.probabilities)
    chosen = most_uncertain(unsure, pool.free, pool.pick_count, pool.seed)
    return [Pick(int(index), float(unsure[index]), Reason.UNCERTAIN) for index in chosen]

"""The `margin` strategy: the items with the smallest margin between the prediction and another one."""

from vesta_datasets.selection.at_random import at_random
from vesta_datasets.selection.pool import Pick, Pool, Reason
from vesta_datasets.selection.uncertainty import most_uncertain


def margin(pool: Pool) -> list[Pick]:
    """Picks the items with the smallest margin. Before the first model, picks are random and have that reason."""
    if pool.uncertainty is None:
        return at_random(pool)
    unsure = pool.uncertainty.margin
    chosen = most_uncertain(unsure, pool.free, pool.pick_count, pool.seed)
    return [Pick(int(index), float(unsure[index]), Reason.UNCERTAIN) for index in chosen]

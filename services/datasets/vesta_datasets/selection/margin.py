"""The items between whose two best answers the model wavers most."""

from vesta_datasets.selection.at_random import at_random
from vesta_datasets.selection.pool import Pick, Pool, Reason
from vesta_datasets.selection.uncertainty import margin_uncertainty, most_uncertain


def margin(pool: Pool) -> list[Pick]:
    """Smallest margin first (Scheffer et al., 2001). Before the first model it draws at random, as its reasons say."""
    if pool.probabilities is None:
        return at_random(pool)
    unsure = margin_uncertainty(pool.probabilities, pool.multi_label)
    chosen = most_uncertain(unsure, pool.free, pool.pick_count, pool.seed)
    return [Pick(int(index), float(unsure[index]), Reason.UNCERTAIN) for index in chosen]

"""The items over whose concepts the model spreads its answer most evenly."""

from vesta_datasets.selection.at_random import at_random
from vesta_datasets.selection.pool import Pick, Pool, Reason
from vesta_datasets.selection.uncertainty import entropy_uncertainty, most_uncertain


def entropy(pool: Pool) -> list[Pick]:
    """Highest entropy first (Shannon, 1948). Before the first model it draws at random, as its reasons say.

    Kept because people know and ask for it: with few labels it is often worse than random.
    """
    if pool.probabilities is None:
        return at_random(pool)
    unsure = entropy_uncertainty(pool.probabilities, pool.multi_label)
    chosen = most_uncertain(unsure, pool.free, pool.pick_count, pool.seed)
    return [Pick(int(index), float(unsure[index]), Reason.CONFUSED) for index in chosen]

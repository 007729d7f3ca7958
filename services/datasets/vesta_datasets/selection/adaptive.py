"""The default strategy: typical or random items before the first model, afterwards items that teach most and represent many others."""

import numpy as np

from vesta_datasets.selection.at_random import at_random
from vesta_datasets.selection.coverage import cover
from vesta_datasets.selection.geometry import centred, sample_rows, squared_distances
from vesta_datasets.selection.pool import Floats, Pick, Pool, Reason
from vesta_datasets.selection.uncertainty import most_uncertain

SHORTLIST_BATCHES = 10
SHORTLIST_SHARE, SHORTLIST_SHARE_BY_GAIN = 0.2, 0.1
SHORTLIST_BATCHES_MIN = 2
"""Size of the shortlist: ten batches, but at most a fifth of the unlabelled items, or a tenth of items that take different times, and at
least two batches. Only the items of the most worth can be picked; labels of others improve the model little.
"""


def adaptive(pool: Pool) -> list[Pick]:
    """Picks the items that greedily cover the worth of the pool, from the items of the most worth; see `coverage`. Where all items take the
    same time, the worth is the uncertainty; see `Uncertainty.worth`.

    Before the first model (cold start), all items have the same weight, and the most typical items are picked; random ones if the task
    type has no `typical_start`. The ten
    batches of the shortlist and the width of the kernel (the median distance) were chosen on scikit-learn's digits before
    photographs were tried, and the results are not sensitive to either. The share by gain was chosen on images with boxes: on the digits
    it costs up to three points of accuracy.
    """
    free = pool.free
    if free.size == 0:
        return []
    if pool.uncertainty is None and not pool.typical_start:
        return at_random(pool)
    directions = centred(pool.embeddings, pool.seed)
    worth, by_gain = _usable_worth(pool), pool.uncertainty is not None and pool.uncertainty.gain is not None
    if worth is None:
        weights, candidates, reason = np.ones(free.size, dtype=np.float32), free, Reason.TYPICAL
    else:
        weights, reason = worth[free], Reason.INSTRUCTIVE_AND_TYPICAL if by_gain else Reason.UNCERTAIN_AND_TYPICAL
        share = SHORTLIST_SHARE_BY_GAIN if by_gain else SHORTLIST_SHARE
        candidates = most_uncertain(worth, free, _shortlist_size(pool, share), pool.seed)
    picks = cover(
        points=directions[free],
        weights=weights,
        labelled=directions[pool.labelled],
        candidates=np.searchsorted(free, candidates),
        count=pool.pick_count,
        width=_median_distance(directions, pool.seed),
        seed=pool.seed,
    )
    return [Pick(int(free[row]), share, reason) for row, share in picks]


def _shortlist_size(pool: Pool, share: float) -> int:
    count = int(share * pool.free.size)
    return max(SHORTLIST_BATCHES_MIN * pool.pick_count, min(SHORTLIST_BATCHES * pool.pick_count, count))


def _usable_worth(pool: Pool) -> Floats | None:
    """Returns the `(N,)` worth of the items; None if there is no model or all values are equal."""
    if pool.uncertainty is None:
        return None
    worth = pool.uncertainty.worth
    return worth if float(np.ptp(worth)) > 0.0 else None


def _median_distance(directions: Floats, seed: int) -> float:
    """Returns the median distance between two items of the pool; 1 if it is 0."""
    sample = sample_rows(directions, seed)[:1024]
    if sample.shape[0] < 2:
        return 1.0
    upper = np.triu_indices(sample.shape[0], k=1)
    median = float(np.sqrt(np.median(squared_distances(sample, sample)[upper])))
    return median if median > 0.0 else 1.0

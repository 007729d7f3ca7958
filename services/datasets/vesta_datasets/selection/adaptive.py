"""The default strategy: typical items before the first model, afterwards items that teach most and represent many others."""

import numpy as np

from vesta_datasets.selection.coverage import cover
from vesta_datasets.selection.geometry import centred, sample_rows, squared_distances
from vesta_datasets.selection.pool import Floats, Pick, Pool, Reason
from vesta_datasets.selection.uncertainty import most_uncertain

SHORTLIST_BATCHES = 10
SHORTLIST_SHARE = 0.1
SHORTLIST_BATCHES_MIN = 2
"""Size of the shortlist: ten batches, but at most a tenth of the unlabelled items, and at least two batches. Only the items
of the most worth can be picked; labels of others improve the model little.
"""


def adaptive(pool: Pool) -> list[Pick]:
    """Picks the items that greedily cover the worth of the pool, from the items of the most worth; see `coverage`. Where all items take the
    same time, the worth is the uncertainty; see `Uncertainty.worth`.

    Before the first model (cold start), all items have the same weight, and the most typical items are picked. The ten
    batches of the shortlist and the width of the kernel (the median distance) were chosen on scikit-learn's digits before
    photographs were tried, and the results are not sensitive to either. Its share was chosen on images with boxes.
    """
    free = pool.free
    if free.size == 0:
        return []
    directions = centred(pool.embeddings, pool.seed)
    worth = _usable_worth(pool)
    if worth is None:
        weights, candidates, reason = np.ones(free.size, dtype=np.float32), free, Reason.TYPICAL
    else:
        weights, reason = worth[free], _reason(pool)
        candidates = most_uncertain(worth, free, _shortlist_size(pool), pool.seed)
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


def _shortlist_size(pool: Pool) -> int:
    share = int(SHORTLIST_SHARE * pool.free.size)
    return max(SHORTLIST_BATCHES_MIN * pool.pick_count, min(SHORTLIST_BATCHES * pool.pick_count, share))


def _usable_worth(pool: Pool) -> Floats | None:
    """Returns the `(N,)` worth of the items; None if there is no model or all values are equal."""
    if pool.uncertainty is None:
        return None
    worth = pool.uncertainty.worth
    return worth if float(np.ptp(worth)) > 0.0 else None


def _reason(pool: Pool) -> Reason:
    """Returns why items of much worth are picked."""
    has_gain = pool.uncertainty is not None and pool.uncertainty.gain is not None
    return Reason.INSTRUCTIVE_AND_TYPICAL if has_gain else Reason.UNCERTAIN_AND_TYPICAL


def _median_distance(directions: Floats, seed: int) -> float:
    """Returns the median distance between two items of the pool; 1 if it is 0."""
    sample = sample_rows(directions, seed)[:1024]
    if sample.shape[0] < 2:
        return 1.0
    upper = np.triu_indices(sample.shape[0], k=1)
    median = float(np.sqrt(np.median(squared_distances(sample, sample)[upper])))
    return median if median > 0.0 else 1.0

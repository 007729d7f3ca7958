"""The default: typical items before the first model, afterwards the uncertain ones that stand for many."""

import numpy as np

from vesta_datasets.selection.coverage import cover
from vesta_datasets.selection.geometry import centred, sample_rows, squared_distances
from vesta_datasets.selection.pool import Floats, Pick, Pool, Reason
from vesta_datasets.selection.uncertainty import margin_uncertainty, most_uncertain

SHORTLIST_BATCHES = 10
"""Of the unlabelled items, the most uncertain this many batches' worth may be picked: sure ones teach little."""


def adaptive(pool: Pool) -> list[Pick]:
    """Picks that greedily cover the pool's uncertainty, from the most uncertain items; see `coverage`.

    While no model tells concepts apart, every item counts the same, and the picks are the most typical ones: the cold
    start. Its two settings, the shortlist and the kernel's width (the median distance), were fixed on scikit-learn's
    digits before any photograph was tried; neither is delicate.
    """
    free = pool.free
    if free.size == 0:
        return []
    directions = centred(pool.embeddings, pool.seed)
    unsure = _usable_uncertainty(pool)
    if unsure is None:
        weights, candidates, reason = np.ones(free.size, dtype=np.float32), free, Reason.TYPICAL
    else:
        weights, reason = unsure[free], Reason.UNCERTAIN_AND_TYPICAL
        candidates = most_uncertain(unsure, free, SHORTLIST_BATCHES * pool.pick_count, pool.seed)
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


def _usable_uncertainty(pool: Pool) -> Floats | None:
    """`(N,)` margin uncertainty, or None where there is no model or it is equally sure of everything."""
    if pool.probabilities is None:
        return None
    unsure = margin_uncertainty(pool.probabilities, pool.multi_label)
    return unsure if float(np.ptp(unsure)) > 0.0 else None


def _median_distance(directions: Floats, seed: int) -> float:
    """The pool's own scale: the median distance between two of its items, 1 where they are all alike."""
    sample = sample_rows(directions, seed)[:1024]
    if sample.shape[0] < 2:
        return 1.0
    upper = np.triu_indices(sample.shape[0], k=1)
    median = float(np.sqrt(np.median(squared_distances(sample, sample)[upper])))
    return median if median > 0.0 else 1.0

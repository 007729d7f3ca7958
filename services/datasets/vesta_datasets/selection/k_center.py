"""The `k_center` strategy: the items farthest from all labelled items, so that every region of the pool is covered."""

import numpy as np

from vesta_datasets.selection.geometry import distances_to_nearest
from vesta_datasets.selection.pool import Pick, Pool, Reason


def k_center(pool: Pool) -> list[Pick]:
    """Greedy k-center (Sener and Savarese, arXiv 1708.00489): each pick is the item farthest from labelled and picked items.

    The score is that distance, in `[0, 2]`. Without labels, the first pick is the item nearest to the centre of the pool. The
    strategy ignores the model and prefers outliers: it finds gaps in the labelled data, but is mostly worse than random for
    accuracy.
    """
    if pool.pick_count == 0:
        return []
    free = pool.free
    candidates = pool.embeddings[free]
    order = np.random.default_rng(pool.seed).permutation(free.size)
    candidates = candidates[order]
    if pool.labelled.any():
        distances = distances_to_nearest(candidates, pool.embeddings[pool.labelled])
        first = int(distances.argmax())
    else:
        distances = np.full(free.size, 2.0, dtype=np.float32)
        first = int((candidates @ candidates.mean(axis=0)).argmax())
    picks: list[Pick] = []
    position = first
    while True:
        picks.append(Pick(int(free[order[position]]), float(distances[position]), Reason.FAR))
        if len(picks) == pool.pick_count:
            return picks
        cosines = candidates @ candidates[position]
        distances = np.minimum(distances, np.sqrt(np.maximum(2.0 - 2.0 * cosines, 0.0)))
        distances[position] = -np.inf
        position = int(distances.argmax())

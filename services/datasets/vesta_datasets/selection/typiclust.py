"""The `typiclust` strategy: the most typical item of each cluster without labels. Suited to very few labels.

Source: Hacohen, Dekel and Weinshall, "Active Learning on a Budget" (ICML 2022).
"""

import warnings
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vesta_datasets.selection.geometry import principal, squared_distances
from vesta_datasets.selection.pool import Floats, Indices, Pick, Pool, Reason

CLUSTERS_MAX: Final = 500
NEIGHBOURS_MAX: Final = 20
DIMENSIONS: Final = 64
KMEANS_ITEMS_MAX: Final = 10_000
CLUSTER_SAMPLE_MAX: Final = 2_048


def typiclust(pool: Pool) -> list[Pick]:
    """Clusters the pool into as many clusters as there will be labels, and picks the most typical item of each.

    The score is the typicality: the inverse of the mean distance to the nearest neighbours in the cluster. Clusters with the
    fewest labels and picks come first, then those with the most items, so that a second item of a cluster is picked only after
    all other clusters. Predictions are not used.
    """
    if pool.pick_count == 0:
        return []
    points = principal(pool.embeddings, DIMENSIONS, pool.seed)
    cluster_count = min(int(pool.labelled.sum()) + pool.pick_count, CLUSTERS_MAX, points.shape[0])
    clusters = _cluster(points, cluster_count, pool.seed)
    sizes = np.bincount(clusters, minlength=cluster_count)
    label_counts = np.bincount(clusters[pool.labelled], minlength=cluster_count)
    queues = {
        int(cluster): _by_typicality(points, np.flatnonzero(clusters == cluster), pool)
        for cluster in np.unique(clusters[~pool.labelled])
    }
    picks: list[Pick] = []
    while len(picks) < pool.pick_count:
        cluster = min(queues, key=lambda key: (label_counts[key], -sizes[key], key))
        index, typicality = queues[cluster].pop()
        picks.append(Pick(index, typicality, Reason.TYPICAL))
        label_counts[cluster] += 1
        if not queues[cluster]:
            del queues[cluster]
    return picks


def _cluster(points: Floats, count: int, seed: int) -> NDArray[np.intp]:
    """Returns the `(N,)` cluster index of each row, in `[0, count)`. Clusters can be empty."""
    from sklearn.cluster import KMeans, MiniBatchKMeans  # lazy: the import takes seconds and permanent memory
    from sklearn.exceptions import ConvergenceWarning

    distinct = np.unique(points, axis=0).shape[0]
    count = min(count, distinct)
    if points.shape[0] <= KMEANS_ITEMS_MAX:
        method = KMeans(count, n_init=1, max_iter=50, random_state=seed % 2**32)
    else:
        method = MiniBatchKMeans(count, n_init=1, batch_size=4096, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # near-identical items leave clusters empty, which is harmless
        labels: NDArray[np.intp] = method.fit_predict(points).astype(np.intp)
    return labels


def _by_typicality(points: Floats, members: Indices, pool: Pool) -> list[tuple[int, float]]:
    """Returns the unlabelled rows of a cluster with their typicality, the most typical last.

    In a cluster with more than `CLUSTER_SAMPLE_MAX` rows, neighbours are searched in a random sample of them.
    """
    free = members[~pool.labelled[members]]
    around = members
    if members.size > CLUSTER_SAMPLE_MAX:
        random = np.random.default_rng(pool.seed)
        around = random.choice(members, CLUSTER_SAMPLE_MAX, replace=False)
    neighbours = min(NEIGHBOURS_MAX, max(1, around.size // 2))
    typicality = np.empty(free.size)
    for start in range(0, free.size, CLUSTER_SAMPLE_MAX):
        rows = free[start : start + CLUSTER_SAMPLE_MAX]
        squares = squared_distances(points[rows], points[around])
        squares[rows[:, None] == around[None, :]] = np.inf
        nearest = np.sqrt(np.sort(squares, axis=1)[:, :neighbours])
        nearest = np.where(np.isfinite(nearest), nearest, 0.0)
        typicality[start : start + rows.size] = 1.0 / (nearest.mean(axis=1) + 1e-6)
    order = np.lexsort((-free, typicality))
    return [(int(free[index]), float(typicality[index])) for index in order]

"""Greedy coverage: pick the items that, together, best stand for what is not understood yet.

After MaxHerding (Bae et al., ECCV 2024) and Uncertainty Herding (Bae et al., ICLR 2025): an item covers another one
by a Gaussian kernel of their distance, and the next pick is whatever adds most uncovered weight. With equal weights
this is a cold start that prefers typical images; weighted by the model's uncertainty it asks where the model is unsure
about many, and never twice for the same reason. The sum is submodular, so that the lazy greedy (Minoux, 1978) finds
what the plain greedy finds at a fraction of the work.
"""

import heapq

import numpy as np

from vesta_datasets.selection.geometry import SAMPLE_MAX, distances_to_nearest, squared_distances
from vesta_datasets.selection.pool import Floats, Indices


def cover(
    points: Floats, weights: Floats, labelled: Floats, candidates: Indices, count: int, width: float, seed: int
) -> list[tuple[int, float]]:
    """The `count` candidates that greedily cover most weight.

    Args:
        points: `(N, D)` what is to be covered; candidates are rows of it. Beyond `SAMPLE_MAX` rows a random sample
            stands for all.
        weights: `(N,)`, not negative: how much each point matters.
        labelled: `(L, D)`, L may be 0: what covers already.
        candidates: rows that may be picked; beyond `SAMPLE_MAX` a random sample, never fewer than `count`.
        count: at most as many as there are candidates.
        width: the kernel's, in the units of `points`, above 0.
        seed: for the samples and for ties.

    Returns:
        Pairs of row and the share of all weight that this pick newly covers, in the order picked.
    """
    if count == 0:
        return []
    random = np.random.default_rng(seed)
    order = random.permutation(candidates)[: max(SAMPLE_MAX, count)]
    targets = np.arange(points.shape[0])
    if targets.size > SAMPLE_MAX:
        targets = random.choice(targets, SAMPLE_MAX, replace=False)
    weight = weights[targets]
    total = float(weight.sum())
    if total <= 0.0:
        weight, total = np.ones_like(weight), float(weight.size)
    covered = np.zeros(targets.size, dtype=np.float32)
    if labelled.shape[0]:
        covered = np.exp(-((distances_to_nearest(points[targets], labelled) / width) ** 2))
    kernel = np.exp(squared_distances(points[order], points[targets]) / -(width**2))

    gains = [float(np.maximum(row - covered, 0.0) @ weight) for row in kernel]
    heap = [(-gain, place) for place, gain in enumerate(gains)]
    heapq.heapify(heap)
    picks: list[tuple[int, float]] = []
    while len(picks) < count:
        _, place = heapq.heappop(heap)
        gain = float(np.maximum(kernel[place] - covered, 0.0) @ weight)
        if heap and (-gain, place) > heap[0]:
            heapq.heappush(heap, (-gain, place))
            continue
        picks.append((int(order[place]), gain / total))
        covered = np.maximum(covered, kernel[place])
    return picks

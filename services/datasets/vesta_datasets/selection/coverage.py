"""Greedy coverage: picks the items that together best represent the weighted points.

The method follows MaxHerding (Bae et al., ECCV 2024) and Uncertainty Herding (Bae et al., ICLR 2025). An item covers
another one by a Gaussian kernel of their distance, and the next pick is the one that adds most coverage. With equal weights
(cold start), typical images are picked. With weights by the uncertainty of the model, images are picked that represent many
uncertain ones, and similar images are not picked twice. The objective is submodular, so that the lazy greedy algorithm
(Minoux, 1978) finds the same picks as the plain greedy algorithm with far fewer evaluations.
"""

import heapq

import numpy as np

from vesta_datasets.selection.geometry import SAMPLE_MAX, distances_to_nearest, squared_distances
from vesta_datasets.selection.pool import Floats, Indices


def cover(
    points: Floats, weights: Floats, labelled: Floats, candidates: Indices, count: int, width: float, seed: int
) -> list[tuple[int, float]]:
    """Picks the `count` candidates that greedily cover most weight.

    Args:
        points: `(N, D)`, the points to cover; candidates are rows of it. If there are more than `SAMPLE_MAX`, a random sample of
            them is used.
        weights: `(N,)`, the weight of each point, not negative.
        labelled: `(L, D)`, points that provide coverage already; L can be 0.
        candidates: rows that can be picked. If there are more than `SAMPLE_MAX`, a random sample of at least `count` is used.
        count: at most the number of candidates.
        width: of the kernel, in the units of `points`, above 0.
        seed: of the samples and of the order of ties.

    Returns:
        Pairs of row and the share of the total weight that the pick adds to the coverage, in the order picked.
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
    heap = [(-gain, index) for index, gain in enumerate(gains)]
    heapq.heapify(heap)
    picks: list[tuple[int, float]] = []
    while len(picks) < count:
        _, index = heapq.heappop(heap)
        gain = float(np.maximum(kernel[index] - covered, 0.0) @ weight)
        if heap and (-gain, index) > heap[0]:
            heapq.heappush(heap, (-gain, index))
            continue
        picks.append((int(order[index]), gain / total))
        covered = np.maximum(covered, kernel[index])
    return picks

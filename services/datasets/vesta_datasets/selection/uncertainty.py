"""How unsure a model is of each item, as one figure in `[0, 1]`."""

import numpy as np
from numpy.typing import NDArray

from vesta_datasets.selection.pool import Floats, Indices


def margin_uncertainty(probabilities: Floats, multi_label: bool) -> Floats:
    """1 less the margin between the two best answers.

    For multi-label models the margin is the smallest distance of a centred answer from one half, doubled: the distance of the
    score from its concept's threshold, as a share of the largest possible.

    Args:
        probabilities: `(N, C)`.

    Returns:
        `(N,)`: 0 where the model is sure, 1 where it cannot tell. A model of one single-label concept is always sure.
    """
    if multi_label:
        return _unit(1.0 - 2.0 * np.abs(probabilities - 0.5).min(axis=1))
    if probabilities.shape[1] < 2:
        return np.zeros(probabilities.shape[0], dtype=np.float32)
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    return _unit(1.0 - (best[:, 1] - best[:, 0]))


def entropy_uncertainty(probabilities: Floats, multi_label: bool) -> Floats:
    """Entropy of the answer over its largest possible value; for multi-label, the mean over the concepts.

    Args:
        probabilities: `(N, C)`.

    Returns:
        `(N,)` in `[0, 1]`.
    """
    p = np.clip(probabilities.astype(np.float64), 1e-12, 1.0)
    if multi_label:
        q = np.clip(1.0 - p, 1e-12, 1.0)
        return _unit(-(p * np.log2(p) + q * np.log2(q)).mean(axis=1))
    if probabilities.shape[1] < 2:
        return np.zeros(probabilities.shape[0], dtype=np.float32)
    return _unit(-(p * np.log(p)).sum(axis=1) / np.log(p.shape[1]))


def most_uncertain(uncertainty: Floats, free: Indices, count: int, seed: int) -> Indices:
    """The `count` rows of `free` with the highest uncertainty, highest first; ties fall by lot, not by age.

    Args:
        uncertainty: `(N,)`.
        free: rows to choose from.
    """
    lot = np.random.default_rng(seed).permutation(free.size)
    order = np.lexsort((lot, -uncertainty[free]))
    return free[order[:count]]


def _unit(values: NDArray[np.floating]) -> Floats:
    clipped: Floats = np.clip(values, 0.0, 1.0).astype(np.float32)
    return clipped

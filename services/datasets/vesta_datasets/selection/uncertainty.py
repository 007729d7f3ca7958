"""Uncertainty of a model about each item, as a number in `[0, 1]`."""

import numpy as np
from numpy.typing import NDArray

from vesta_datasets.selection.pool import Floats, Indices


def margin_uncertainty(probabilities: Floats, multi_label: bool) -> Floats:
    """Returns 1 minus the margin between the two highest probabilities.

    For multi-label models the margin is twice the smallest distance of a centred probability from 0.5: the distance of the
    score from the threshold of its concept, as a share of the largest possible distance.

    Args:
        probabilities: `(N, C)`.

    Returns:
        `(N,)`: 0 is certain, 1 is undecided. The uncertainty of a single-label model with one concept is always 0.
    """
    if multi_label:
        return _unit(1.0 - 2.0 * np.abs(probabilities - 0.5).min(axis=1))
    if probabilities.shape[1] < 2:
        return np.zeros(probabilities.shape[0], dtype=np.float32)
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    return _unit(1.0 - (best[:, 1] - best[:, 0]))


def entropy_uncertainty(probabilities: Floats, multi_label: bool) -> Floats:
    """Returns the entropy of the predictions, divided by its maximum; for multi-label models, the mean over the concepts.

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
    """Returns the `count` rows of `free` with the highest uncertainty, highest first. Ties are in random order, not by age.

    Args:
        uncertainty: `(N,)`.
        free: rows to pick from.
    """
    lot = np.random.default_rng(seed).permutation(free.size)
    order = np.lexsort((lot, -uncertainty[free]))
    return free[order[:count]]


def _unit(values: NDArray[np.floating]) -> Floats:
    clipped: Floats = np.clip(values, 0.0, 1.0).astype(np.float32)
    return clipped

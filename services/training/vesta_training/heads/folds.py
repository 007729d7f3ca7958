"""Stratified folds of a cross-validation."""

import numpy as np
import numpy.typing as npt


def deal_folds(labels: npt.NDArray[np.bool_], fold_count: int, seed: int) -> npt.NDArray[np.int64]:
    """Returns the fold in which each item is held out, or -1 for items that are never held out.

    Items are stratified by their rarest concept. The only item of a concept is never held out, because the concept could not be
    learned without it. If fewer than two concepts have two or more items, all values are -1.

    Args:
        labels: `(N, C)`.

    Returns:
        `(N,)`, in `[-1, fold_count)`.
    """
    counts = labels.sum(axis=0)
    rarity = np.where(labels, counts, np.iinfo(np.int64).max)
    # Items without any concept (multi-label) are a stratum of their own.
    kinds = np.where(labels.any(axis=1), rarity.argmin(axis=1), labels.shape[1])
    folds = np.full(len(labels), -1, dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    spread_kinds = 0
    turn = 0
    for kind in range(labels.shape[1] + 1):
        members = order[kinds[order] == kind]
        if len(members) < 2:
            continue
        spread_kinds += 1
        folds[members] = (turn + np.arange(len(members))) % fold_count
        turn += len(members)
    if spread_kinds < 2:
        folds[:] = -1
    return folds

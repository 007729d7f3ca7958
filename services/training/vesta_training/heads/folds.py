"""Deals labelled items to the folds of a cross-validation, so that each concept is spread over them."""

import numpy as np
import numpy.typing as npt


def deal_folds(labels: npt.NDArray[np.bool_], fold_count: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold that holds each item out, or -1 for an item that is never held out.

    An item is dealt by the rarest concept it bears. The only item of a concept is never held out, since nothing else
    could teach that concept. All are -1 where fewer than two concepts have two items to spare.

    Args:
        labels: `(N, C)`.

    Returns:
        `(N,)`, in `[-1, fold_count)`.
    """
    counts = labels.sum(axis=0)
    rarity = np.where(labels, counts, np.iinfo(np.int64).max)
    # Items without any concept (multi-label) are dealt as one more kind.
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

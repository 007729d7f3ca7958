"""Whether two sets of objects of an image are the same: what a prediction of objects must reach to be right. Pure.

Training measures error rates by it on held-out items, and the conductor on answers of the control arm.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesta_common.media.crowds import INSIDE_MIN

SIMILARITY_MIN = 0.5
"""Two shapes of one object have at least this similarity, as in mAP@50."""


def are_same(similarities: NDArray[np.float64], concepts: Sequence[str | int], others: Sequence[str | int]) -> bool:
    """Returns whether the objects can be paired so that none is left, with equal concepts and a similarity of `SIMILARITY_MIN` or more.

    The order of the objects does not matter, unlike in mAP, where the highest score chooses first.

    Args:
        similarities: `(N, M)` in [0, 1], such as intersections over unions of boxes or masks.
        concepts: N concepts.
        others: M concepts.
    """
    if Counter(concepts) != Counter(others):
        return False
    if not concepts:
        return True
    from scipy.sparse import csr_array  # here, because most processes never need it
    from scipy.sparse.csgraph import maximum_bipartite_matching

    fits = (np.array(concepts)[:, None] == np.array(others)) & (similarities >= SIMILARITY_MIN)
    if not (fits.any(axis=0).all() and fits.any(axis=1).all()):
        return False
    return bool((maximum_bipartite_matching(csr_array(fits), perm_type="column") >= 0).all())


def beside_crowds(
    similarities: NDArray[np.float64],
    crowd_shares: NDArray[np.float64],
    found: NDArray[Any],
    objects: NDArray[Any],
    crowds: NDArray[Any],
) -> NDArray[np.bool_]:
    """Returns `(N,)`, which found objects count: those that may be one of the true objects, and those in no crowd of their concept.

    Args:
        similarities: `(N, M)` of found and true objects.
        crowd_shares: `(N, K)` shares of found objects that lie in crowds.
        found: `(N,)` concepts.
        objects: `(M,)` concepts of the true objects, without crowds.
        crowds: `(K,)` concepts.
    """
    is_object = ((found[:, None] == objects) & (similarities >= SIMILARITY_MIN)).any(axis=1)
    in_crowd = ((found[:, None] == crowds) & (crowd_shares >= INSIDE_MIN)).any(axis=1)
    counted: NDArray[np.bool_] = is_object | ~in_crowd
    return counted

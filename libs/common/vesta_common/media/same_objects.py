"""Whether two sets of objects of an image are the same: what a prediction of objects must reach to be right. Pure.

Training measures error rates by it on held-out items, and the conductor on answers of the control arm.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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

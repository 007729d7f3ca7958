"""Binary codes of embeddings, whose Hamming distance approximates the angle between the embeddings. Pure.

Each bit says on which side of a random hyperplane an embedding lies (Charikar, STOC 2002). The hyperplanes depend only on the dimension
of the embeddings, and nothing is trained. A threshold per bit moves each hyperplane into the middle of the embeddings that are encoded
together, so that the bits differ also where all embeddings are close to each other, such as frames of one camera.
"""

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.uint64]

CODE_BITS: Final = 512
WORDS: Final = CODE_BITS // 64
_SEED: Final = 20_261_130


def project(embeddings: Floats) -> Floats:
    """Returns the distances of embeddings from the hyperplanes, in units that depend on the length of the embeddings.

    Args:
        embeddings: `(N, D)`.

    Returns:
        `(N, CODE_BITS)`.
    """
    projections: Floats = embeddings @ _hyperplanes(embeddings.shape[1])
    return projections


def project_query(embedding: Floats) -> Floats:
    """As `project`, for one embedding, `(D,)`. einsum, unlike @, starts no threads, which take longer than the product on busy cores."""
    projection: Floats = np.einsum("d,db->b", embedding, _hyperplanes(len(embedding)))
    return projection


def encode(projections: Floats, thresholds: Floats) -> Codes:
    """Returns the codes of projected embeddings.

    Args:
        projections: `(N, CODE_BITS)`, of `project`.
        thresholds: `(CODE_BITS,)`. Only codes with the same thresholds are comparable.

    Returns:
        `(WORDS, N)`, contiguous.
    """
    bits = np.packbits(projections > thresholds, axis=1)
    return np.ascontiguousarray(bits.view(np.uint64).T)


def distances(codes: Codes, query_codes: Codes) -> NDArray[np.uint16]:
    """Returns the number of bits in which codes differ from codes of a query.

    Args:
        codes: `(W, N)`, `W` in `[1, WORDS]`: with fewer words, the distances of the first `64 * W` bits.
        query_codes: `(W, N)`, one for each code, or `(W, 1)`.

    Returns:
        `(N,)`.
    """
    found: NDArray[np.uint16] = np.bitwise_count(codes ^ query_codes).sum(axis=0, dtype=np.uint16)
    return found


def similarities(codes: Codes, weights: Floats) -> Floats:
    """Returns the sum of weights for each code: with their signs where the bit is set, and with the opposite signs elsewhere.

    With the distances of a query from the hyperplanes as weights, this is more exact than a number of differing bits: a hyperplane close
    to the query says little. Divided by the length of the weights, it grows with the cosine of query and embedding.

    Args:
        codes: `(WORDS, N)`.
        weights: `(CODE_BITS,)`.

    Returns:
        `(N,)`.
    """
    bits = np.unpackbits(np.ascontiguousarray(codes.T).view(np.uint8), axis=1)
    sums: Floats = 2 * np.einsum("nb,b->n", bits.astype(np.float32), weights) - weights.sum()  # see project_query
    return sums


@lru_cache(maxsize=4)
def _hyperplanes(dimension: int) -> Floats:
    """Returns the normals of the hyperplanes, `(dimension, CODE_BITS)`.

    Stored codes depend on them, so that they come from the generator whose sequence NumPy guarantees not to change.
    """
    return np.random.RandomState(_SEED).standard_normal((dimension, CODE_BITS)).astype(np.float32)

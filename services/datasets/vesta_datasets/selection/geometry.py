"""Distances between embeddings, in blocks, so that memory stays bounded however large the pool is."""

import numpy as np

from vesta_datasets.selection.pool import Floats

BLOCK_ENTRIES_MAX = 16_000_000
"""Most entries of a matrix of distances held at once (64 MB)."""

SAMPLE_MAX = 4096
"""Most rows from which a property of the whole pool (its axes, its scale) is estimated."""


def distances_to_nearest(points: Floats, references: Floats) -> Floats:
    """`(N,)` Euclidean distance of each row of `points` to the nearest row of `references`, which has at least one."""
    nearest = np.empty(points.shape[0], dtype=np.float32)
    reference_squares = np.einsum("ij,ij->i", references, references)
    block = max(1, BLOCK_ENTRIES_MAX // references.shape[0])
    for start in range(0, points.shape[0], block):
        rows = points[start : start + block]
        squares = reference_squares[None, :] - 2.0 * (rows @ references.T)
        nearest[start : start + block] = squares.min(axis=1) + np.einsum("ij,ij->i", rows, rows)
    distances: Floats = np.sqrt(np.maximum(nearest, 0.0))
    return distances


def squared_distances(points: Floats, others: Floats) -> Floats:
    """`(N, M)` squared Euclidean distances, never negative. The caller keeps N x M bounded."""
    squares: Floats = np.einsum("ij,ij->i", points, points)[:, None] + np.einsum("ij,ij->i", others, others)[None, :]
    squares -= 2.0 * (points @ others.T)
    np.maximum(squares, 0.0, out=squares)
    return squares


def sample_rows(points: Floats, seed: int) -> Floats:
    """At most `SAMPLE_MAX` rows, drawn at random."""
    if points.shape[0] <= SAMPLE_MAX:
        return points
    return points[np.random.default_rng(seed).choice(points.shape[0], SAMPLE_MAX, replace=False)]


def centred(embeddings: Floats, seed: int) -> Floats:
    """`(N, D)` directions from the pool's centre, of unit length.

    Embeddings of one domain share a large common part; without it their differences fill the whole sphere. Rows at the
    centre itself become zero.
    """
    centre = sample_rows(embeddings, seed).mean(axis=0)
    directions = embeddings - centre
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    units: Floats = np.divide(directions, lengths, out=np.zeros_like(directions), where=lengths > 1e-6)
    return units


def principal(embeddings: Floats, dimensions: int, seed: int) -> Floats:
    """`(N, at most dimensions)` coordinates along the axes of largest variance; their scale is kept."""
    from sklearn.utils.extmath import randomized_svd  # at first use: it costs seconds, and memory for good

    sample = sample_rows(embeddings, seed)
    centre = sample.mean(axis=0)
    kept = min(dimensions, *sample.shape)
    _, _, axes = randomized_svd(sample - centre, kept, n_iter=2, random_state=seed % 2**32)
    projected: Floats = (embeddings - centre) @ axes.T
    return projected

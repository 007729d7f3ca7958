"""Distances and projections of embeddings. They are computed in blocks, so that memory does not grow with the pool."""

import numpy as np

from vesta_datasets.selection.pool import Floats

BLOCK_ENTRIES_MAX = 16_000_000
"""Maximum number of entries of a distance matrix in memory (64 MB)."""

SAMPLE_MAX = 4096
"""Maximum number of rows from which properties of the whole pool, such as its axes and scale, are estimated."""


def distances_to_nearest(points: Floats, references: Floats) -> Floats:
    """Returns `(N,)` Euclidean distances of the rows of `points` to the nearest row of `references`, which is not empty."""
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
    """Returns `(N, M)` squared Euclidean distances, never negative. The caller limits N x M."""
    squares: Floats = np.einsum("ij,ij->i", points, points)[:, None] + np.einsum("ij,ij->i", others, others)[None, :]
    squares -= 2.0 * (points @ others.T)
    np.maximum(squares, 0.0, out=squares)
    return squares


def sample_rows(points: Floats, seed: int) -> Floats:
    """Returns a random sample of at most `SAMPLE_MAX` rows."""
    if points.shape[0] <= SAMPLE_MAX:
        return points
    return points[np.random.default_rng(seed).choice(points.shape[0], SAMPLE_MAX, replace=False)]


def centred(embeddings: Floats, seed: int) -> Floats:
    """Returns `(N, D)` unit vectors from the centre of the pool to each row.

    Embeddings of one domain have a large common component. Without it, their differences use the whole sphere. Rows at the
    centre become zero.
    """
    centre = sample_rows(embeddings, seed).mean(axis=0)
    directions = embeddings - centre
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    units: Floats = np.divide(directions, lengths, out=np.zeros_like(directions), where=lengths > 1e-6)
    return units


def principal(embeddings: Floats, dimensions: int, seed: int) -> Floats:
    """Projects `(N, D)` embeddings onto the axes of largest variance (PCA): `(N, at most dimensions)`, not rescaled."""
    from sklearn.utils.extmath import randomized_svd  # lazy: the import takes seconds and permanent memory

    sample = sample_rows(embeddings, seed)
    centre = sample.mean(axis=0)
    axis_count = min(dimensions, *sample.shape)
    _, _, axes = randomized_svd(sample - centre, axis_count, n_iter=2, random_state=seed % 2**32)
    projected: Floats = (embeddings - centre) @ axes.T
    return projected

"""Masks by the pixels at which they begin and end: overlap, majority, and the pixels of a polygon, in time proportional to the outlines.

`Edges` are the strictly increasing positions, in row-major order, at which a mask begins and ends in turn: pixels from the first to before
the second are inside, and so on. They do not depend on the size of the image, except that both masks must have the same width.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.common.v1 import Mask, Polygon

Edges = NDArray[np.int64]
_ROWS_AT_ONCE = 128


def edges_of(mask: Mask) -> Edges:
    """Returns the edges of a mask."""
    runs = np.array(mask.runs_px, np.int64)
    return _alternating(np.cumsum(runs)[: len(runs) // 2 * 2])


def mask_of(edges: Edges, height_px: int, width_px: int) -> Mask:
    """Returns the mask with these edges; the inverse of `edges_of`."""
    pixels = height_px * width_px
    last = [] if len(edges) and edges[-1] == pixels else [pixels]
    runs = np.diff(np.concatenate([edges, last]).astype(np.int64), prepend=0)
    return Mask(height_px=height_px, width_px=width_px, runs_px=runs.tolist())


def mask_edges(inside: NDArray[np.bool_], top_px: int, left_px: int, width_px: int) -> Edges:
    """Returns the edges of the pixels of a part of an image.

    Args:
        inside: `(rows, columns)`, whether each pixel of the part is inside of the mask.
        top_px, left_px: the first row and column of the part.
        width_px: of the image.
    """
    rows, columns = np.nonzero(np.diff(np.pad(inside, ((0, 0), (1, 1))), axis=1))
    return _alternating((rows + top_px) * width_px + columns + left_px)


def bounds_of(edges: Edges, width_px: int) -> tuple[int, int, int, int]:
    """Returns x_min, y_min, x_max and y_max of the box around a mask, in pixels; without area if it is empty."""
    if not len(edges):
        return (0, 0, 0, 0)
    (first_row, first), (last_row, last) = divmod(edges[::2], width_px), divmod(edges[1::2] - 1, width_px)
    several_rows = bool((first_row != last_row).any())
    x_min, x_max = (0, width_px) if several_rows else (int(first.min()), int(last.max()) + 1)
    return x_min, int(first_row[0]), x_max, int(last_row[-1]) + 1


def area(edges: Edges) -> int:
    """Returns the number of pixels inside."""
    return int((edges[1::2] - edges[::2]).sum())


def overlap(one: Edges, other: Edges) -> int:
    """Returns the number of pixels inside of both masks."""
    if not len(one) or not len(other):
        return 0
    inside = np.zeros(len(one), np.int64)
    inside[1::2] = one[1::2] - one[::2]
    before = np.interp(other, one, np.cumsum(inside))  # the pixels of `one` before each edge of `other`
    return round(float((before[1::2] - before[::2]).sum()))


def iou(one: Edges, other: Edges) -> float:
    """Returns the intersection over union; 0 if both masks are empty."""
    intersection = overlap(one, other)
    union = area(one) + area(other) - intersection
    return intersection / union if union else 0.0


def covered(masks: Sequence[Edges], least: int) -> Edges:
    """Returns the edges of the pixels that are inside of at least `least` of the masks; of none if `least` is more than their number."""
    if not masks:
        return np.zeros(0, np.int64)
    positions = np.concatenate(masks)
    steps = np.concatenate([np.where(np.arange(len(edges)) % 2, -1, 1) for edges in masks])
    places, place_of = np.unique(positions, return_inverse=True)
    counts = np.cumsum(np.bincount(place_of, steps, len(places)).round().astype(np.int64))
    inside = counts >= least
    return places[np.flatnonzero(np.diff(inside, prepend=False))]


def without(one: Edges, other: Edges) -> Edges:
    """Returns the edges of the pixels of `one` outside of `other`."""
    return _alternating(np.sort(np.concatenate([one, covered([one, other], 2)])))


def rasterised(polygon: Polygon, height_px: int, width_px: int) -> Edges:
    """Returns the edges of the pixels whose centres are inside of a polygon, by the even-odd rule; points outside of the image are cut."""
    starts, ends = _segments(polygon)
    upward = starts[:, 1] > ends[:, 1]
    starts[upward], ends[upward] = ends[upward], starts[upward].copy()
    first = np.ceil(starts[:, 1] - 0.5).clip(0, height_px)
    last = np.ceil(ends[:, 1] - 0.5).clip(
        0, height_px
    )  # the segment crosses the centres of the rows from first to before last
    parts = [np.zeros(0, np.int64)]
    for top in range(int(first.min(initial=height_px)), int(last.max(initial=0)), _ROWS_AT_ONCE):
        begin, end = np.maximum(first, top).astype(int), np.minimum(last, top + _ROWS_AT_ONCE).astype(int)
        counts = np.maximum(end - begin, 0)
        segment = np.repeat(np.arange(len(counts)), counts)
        rows = np.arange(len(segment)) - np.repeat(np.cumsum(counts) - counts, counts) + begin[segment]
        (x, y), (x_end, y_end) = starts[segment].T, ends[segment].T
        crossings = x + (rows + 0.5 - y) * (x_end - x) / (y_end - y)
        columns = np.ceil(crossings - 0.5).clip(0, width_px).astype(np.int64)
        parts.append(np.sort(rows * width_px + columns))
    return _alternating(np.concatenate(parts))


def _segments(polygon: Polygon) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the start and the end of each side of all rings, `(S, 2)` each."""
    rings = [
        np.array([(point.x_px, point.y_px) for point in ring.points], np.float64).reshape(-1, 2)
        for ring in (polygon.outline, *polygon.holes)
    ]
    return np.concatenate(rings), np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])


def _alternating(positions: NDArray[np.int64]) -> Edges:
    """Returns sorted positions without those that occur an even number of times, at which nothing begins or ends."""
    if (np.diff(positions) > 0).all():
        return positions
    places, counts = np.unique(positions, return_counts=True)
    kept: Edges = places[counts % 2 == 1]
    return kept

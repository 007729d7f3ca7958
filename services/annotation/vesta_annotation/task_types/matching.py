"""Matches the objects of two answers by a similarity in [0, 1].

Objects are matched one to one (Kuhn, The Hungarian method for the assignment problem, 1955): as many as possible, and of all such
matchings the one with the largest sum of similarities. Pairs with a similarity below `SIMILARITY_MIN` are different objects. Only
objects whose extents overlap are compared, and each group of objects that could be matched with one another is assigned on its own, so
that thousands of objects in an image take time in proportion to their number.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.common.v1 import Annotation

SIMILARITY_MIN = 0.5
NEAR_MIN = 0.1
"""Two objects with at least this similarity may be the same object, which their annotators drew differently."""
ASSIGNED_MAX = 500
"""Objects of one answer in a group that are assigned in the best way. Larger groups are matched greedily: so many objects overlap only
in answers that are meant to be slow."""
_EQUAL_CONCEPTS_BONUS = 1e-9
_COMPARED_MAX = 1_000_000

Extents = NDArray[np.float64]
"""`(N, 4)`: x_min, y_min, x_max, y_max in pixels."""
Indices = NDArray[np.intp]


class Shapes(ABC):
    """The N shapes of one answer, prepared for comparison.

    Attributes:
        extents: the boxes around the shapes; shapes whose boxes do not overlap have a similarity below `SIMILARITY_MIN`.
    """

    extents: Extents

    @abstractmethod
    def similarities(self, own: Indices, other: Any, others: Indices) -> NDArray[np.float64]:
        """Returns the similarities of P pairs, `(P,)` in [0, 1]. Symmetric.

        Args:
            own: `(P,)` indices of own shapes.
            other: shapes of the same class.
            others: `(P,)` indices of shapes of `other`.
        """


@dataclass(frozen=True)
class Objects:
    """The objects of one answer: N annotations, and their shapes."""

    annotations: Sequence[Annotation]
    shapes: Shapes

    def __len__(self) -> int:
        return len(self.annotations)


def match(one: Objects, other: Objects, *, same_concept: bool) -> dict[tuple[int, int], float]:
    """Returns the pairs of indices of matched objects, each with its similarity.

    Args:
        same_concept: only objects of one concept are matched. Without it, equal concepts decide only between objects that are equally
            similar.
    """
    if not len(one) or not len(other):
        return {}
    rows, columns = _overlapping(one.shapes.extents, other.shapes.extents)
    concepts, others = (np.array([a.concept for a in objects.annotations]) for objects in (one, other))
    equal = concepts[rows] == others[columns] if len(rows) else np.zeros(0, np.bool_)
    if same_concept:
        rows, columns, equal = rows[equal], columns[equal], equal[equal]
    found = one.shapes.similarities(rows, other.shapes, columns)
    possible = found >= SIMILARITY_MIN
    pairs = _Pairs(rows[possible], columns[possible], found[possible], equal[possible])
    return dict(sorted(entry for group in pairs.groups() for entry in group.assigned()))


def near_pairs(objects: Objects) -> list[tuple[int, int]]:
    """Returns the pairs of indices of objects with a similarity of at least `NEAR_MIN`, the most similar first, whatever their concepts."""
    if not len(objects):
        return []
    rows, columns = _overlapping(objects.shapes.extents, objects.shapes.extents)
    rows, columns = rows[rows < columns], columns[rows < columns]
    found = objects.shapes.similarities(rows, objects.shapes, columns)
    order = [index for index in np.argsort(-found, kind="stable") if found[index] >= NEAR_MIN]
    return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))


@dataclass(frozen=True)
class _Pairs:
    """P pairs of objects that could be matched."""

    rows: Indices
    columns: Indices
    similarities: NDArray[np.float64]
    equal: NDArray[np.bool_]

    def __getitem__(self, chosen: Indices) -> "_Pairs":
        return _Pairs(self.rows[chosen], self.columns[chosen], self.similarities[chosen], self.equal[chosen])

    def groups(self) -> Iterator["_Pairs"]:
        """Yields the connected components of the graph of pairs."""
        if not len(self.rows):
            return
        from scipy.sparse import coo_array  # here, because most processes never need it
        from scipy.sparse.csgraph import connected_components

        row_count = int(self.rows.max()) + 1
        size = row_count + int(self.columns.max()) + 1
        edges = coo_array((np.ones(len(self.rows)), (self.rows, self.columns + row_count)), shape=(size, size))
        labels = connected_components(edges, directed=False)[1][self.rows]
        order = np.argsort(labels, kind="stable")
        for chosen in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
            yield self[chosen]

    def assigned(self) -> Iterator[tuple[tuple[int, int], float]]:
        """Yields the matched pairs of a group."""
        if len(self.rows) == 1:
            yield (int(self.rows[0]), int(self.columns[0])), float(self.similarities[0])
            return
        rows, row_of = np.unique(self.rows, return_inverse=True)
        columns, column_of = np.unique(self.columns, return_inverse=True)
        if max(len(rows), len(columns)) > ASSIGNED_MAX:
            yield from self._greedily()
            return
        from scipy.optimize import linear_sum_assignment

        similarities = np.zeros((len(rows), len(columns)))
        weights = np.zeros_like(similarities)
        similarities[row_of, column_of] = self.similarities
        weights[row_of, column_of] = len(rows) + self.similarities + _EQUAL_CONCEPTS_BONUS * self.equal
        for a, b in zip(*linear_sum_assignment(weights, maximize=True), strict=True):
            if weights[a, b]:
                yield (int(rows[a]), int(columns[b])), float(similarities[a, b])

    def _greedily(self) -> Iterator[tuple[tuple[int, int], float]]:
        taken_rows, taken_columns = set(), set()
        for index in np.lexsort((self.columns, self.rows, ~self.equal, -self.similarities)):
            row, column = int(self.rows[index]), int(self.columns[index])
            if row not in taken_rows and column not in taken_columns:
                taken_rows.add(row)
                taken_columns.add(column)
                yield (row, column), float(self.similarities[index])


def _overlapping(one: Extents, other: Extents) -> tuple[Indices, Indices]:
    """Returns the indices of the pairs of boxes that overlap or touch."""
    step = max(1, _COMPARED_MAX // max(1, len(other)))
    rows, columns = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    for begin in range(0, len(one), step):
        some = one[begin : begin + step, None]
        overlap = (some[..., :2] <= other[None, :, 2:]) & (some[..., 2:] >= other[None, :, :2])
        found = np.nonzero(overlap.all(axis=2))
        rows.append(found[0] + begin)
        columns.append(found[1])
    return np.concatenate(rows), np.concatenate(columns)

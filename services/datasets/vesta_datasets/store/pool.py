"""Reads the candidates of a selection from PostgreSQL, within limits."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from vesta_common.storage.postgres import Connection
from vesta_contracts.common.v1 import Prediction
from vesta_contracts.datasets.v1 import AcceptedAnnotations

from vesta_datasets.items.facets import BITS, SPLIT_MASK, SPLITS
from vesta_datasets.selection.candidates import Candidates, PoolRow
from vesta_datasets.store.rows import array_of
from vesta_datasets.store.statements import queries
from vesta_datasets.store.vectors import register_vectors

POOL_ROWS_AT_ONCE = 1_000


class PoolLimits(NamedTuple):
    """Maximum numbers of items that a selection reads. If there are more, it reads a random sample.

    Attributes:
        free_max: unlabelled items, which can be picked.
        held_max: items that are labelled or in a task already.
    """

    free_max: int = 16_384
    held_max: int = 4_096


POOL_LIMITS = PoolLimits()


class CandidatePool:
    """The items that a selection can pick."""

    def __init__(self, limits: PoolLimits = POOL_LIMITS) -> None:
        self._limits = limits

    def read(self, connection: Connection, dataset: str, space: str, excluded: Sequence[str], seed: int) -> Candidates:
        """Reads the items of the training split, without near-duplicates, row by row into one array.

        Args:
            space: the embedding space to read.
            excluded: items that are in a task already.
            seed: of the sample, if there are more items than the limits allow.
        """
        register_vectors(connection)
        parameters = {"dataset": dataset, "space": space, "excluded": list(excluded)}
        counts = queries.count_pool(connection, **parameters)
        limits = self._limits
        count = min(counts["free_count"], limits.free_max) + min(counts["held_count"], limits.held_max)
        embeddings = np.zeros((count, counts["dimension"] or 0), np.float32)
        embedded = np.zeros(count, np.bool_)
        rows: list[PoolRow] = []
        with connection.cursor("pool") as cursor:
            cursor.itersize = POOL_ROWS_AT_ONCE
            cursor.execute(queries.list_pool.sql, {**parameters, "seed": seed, **limits._asdict()}, binary=True)
            for index, row in zip(range(count), cursor):  # noqa: B905 - items added since the count are ignored
                prediction = Prediction.FromString(bytes(row["scores"])) if row["scores"] is not None else None
                rows.append(PoolRow(row["name"], row["held"], prediction, _answer(row["accepted"])))
                if row["embedding"] is not None:
                    embeddings[index] = array_of(row["embedding"])
                    embedded[index] = True
        return Candidates(rows, embeddings[: len(rows)], embedded[: len(rows)], counts["free_count"])

    def draw(
        self, connection: Connection, dataset: str, split: str, excluded: Sequence[str], limit: int, seed: int
    ) -> tuple[list[str], int]:
        """Draws unlabelled items of a split uniformly at random. Straddling items are not drawn.

        Returns:
            The names, and the number of items that could have been drawn.
        """
        parameters = {
            "dataset": dataset,
            "excluded": list(excluded),
            "facets_mask": SPLIT_MASK | BITS["labelled"] | BITS["straddles"],
            "facets": SPLITS.index(split),
        }
        names = [row["name"] for row in queries.draw_items(connection, **parameters, seed=seed, limit=limit)]
        return names, int(queries.count_drawable(connection, **parameters))


def _answer(accepted: bytes | None) -> Sequence[str] | None:
    """Returns the concepts of accepted annotations, each as often as it occurs; None if there are none, or if they are stored apart."""
    answer = AcceptedAnnotations.FromString(bytes(accepted)) if accepted is not None else None
    if answer is None or answer.HasField("stored"):
        return None
    return [annotation.concept for annotation in answer.annotations]

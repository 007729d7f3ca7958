"""What selection looks at, read from PostgreSQL within limits."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pgvector.psycopg import register_vector
from vesta_common.storage.postgres import Connection
from vesta_contracts.common.v1 import ImageScores

from vesta_datasets.selection.candidates import Candidates, PoolRow
from vesta_datasets.store.rows import array_of
from vesta_datasets.store.statements import queries

POOL_ROWS_AT_ONCE = 1_000


class PoolLimits(NamedTuple):
    """Most items that selection looks at; of more it sees a random sample.

    Attributes:
        free_max: that it may choose.
        held_max: that are labelled or on their way, and with which it compares.
    """

    free_max: int = 16_384
    held_max: int = 4_096


POOL_LIMITS = PoolLimits()


class CandidatePool:
    """The training side, duplicates aside."""

    def __init__(self, limits: PoolLimits = POOL_LIMITS) -> None:
        self._limits = limits

    def read(self, connection: Connection, dataset: str, space: str, excluded: Sequence[str], seed: int) -> Candidates:
        """What there is to choose from and to compare with, read row by row into one array.

        Args:
            space: which embeddings are wanted.
            excluded: items on their way already.
            seed: draws the sample where there are more items than the limits allow.
        """
        register_vector(connection)
        wanted = {"dataset": dataset, "space": space, "excluded": list(excluded)}
        found = queries.count_pool(connection, **wanted)
        limits = self._limits
        count = min(found["free_count"], limits.free_max) + min(found["held_count"], limits.held_max)
        embeddings = np.zeros((count, found["dimension"] or 0), np.float32)
        embedded = np.zeros(count, np.bool_)
        rows: list[PoolRow] = []
        with connection.cursor("pool") as cursor:
            cursor.itersize = POOL_ROWS_AT_ONCE
            cursor.execute(queries.list_pool.sql, {**wanted, "seed": seed, **limits._asdict()}, binary=True)
            for index, row in zip(range(count), cursor):  # noqa: B905 - items that came meanwhile wait for the next call
                scores = ImageScores.FromString(bytes(row["scores"])) if row["scores"] is not None else None
                rows.append(PoolRow(row["name"], row["held"], scores))
                if row["embedding"] is not None:
                    embeddings[index] = array_of(row["embedding"])
                    embedded[index] = True
        return Candidates(rows, embeddings[: len(rows)], embedded[: len(rows)], found["free_count"])

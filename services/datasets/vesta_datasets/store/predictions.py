"""Predictions in PostgreSQL: scores in the table of items, embeddings in a table of their own."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb
from vesta_common.media.predictions import predicted_concepts
from vesta_common.resources.filters import Where
from vesta_common.storage.postgres import Connection
from vesta_contracts.common.v1 import ImageScores
from vesta_contracts.datasets.v1 import Item

from vesta_datasets.store.rows import array_of, item_of
from vesta_datasets.store.statements import queries

# In the binary format, in which psycopg writes vectors 15 times as fast.
_PUT_EMBEDDINGS = queries.put_embeddings.sql.replace("%(embeddings)s", "%(embeddings)b").encode()


class ScoringModel(NamedTuple):
    """The model that made predictions.

    Attributes:
        version: the model version.
        deployment: the deployment that served it.
        generation: of the deployment; it increases with every change of the model version.
    """

    version: str
    deployment: str
    generation: int


class Predictions:
    """The scores of items and the table of embeddings."""

    def put_scores(
        self,
        connection: Connection,
        dataset: str,
        model: ScoringModel,
        rows: Sequence[tuple[str, ImageScores]],
    ) -> None:
        """Stores scores of items. Scores of an older generation of the same deployment are ignored. Of an item that occurs twice, the
        last scores are stored.
        """
        said = dict(rows)
        queries.lock_scored(connection, names=list(said))
        queries.put_scores(
            connection,
            names=list(said),
            scores=[scores.SerializeToString() for scores in said.values()],
            predicted=[Jsonb(predicted_concepts(scores)) for scores in said.values()],
            top_scores=[scores.scores[0].score if scores.scores else 0.0 for scores in said.values()],
            margins=[scores.margin for scores in said.values()],
            uncertain=[scores.uncertain for scores in said.values()],
            scored_by=model.version,
            deployment=model.deployment,
            generation=model.generation,
        )
        queries.set_scored_by(
            connection,
            name=dataset,
            scored_by=model.version,
            deployment=model.deployment,
            generation=model.generation,
        )

    def put_embeddings(
        self,
        connection: Connection,
        dataset: str,
        model: ScoringModel,
        space: str,
        rows: Sequence[tuple[str, NDArray[np.float32]]],
    ) -> None:
        """Stores embeddings of items, after `put_scores`. Skips items that are deleted or have scores of a newer generation."""
        register_vector(connection)
        embedded = dict(rows)
        connection.execute(
            _PUT_EMBEDDINGS,
            {
                "names": list(embedded),
                "embeddings": [Vector(values) for values in embedded.values()],
                "dataset": dataset,
                "space": space,
                "deployment": model.deployment,
                "generation": model.generation,
            },
        )

    def list_unpublished(self, connection: Connection, published_before: datetime) -> dict[str, int]:
        """Returns the prediction count of each dataset whose count has changed since an event published before that time."""
        rows = queries.list_unpublished_progress(connection, published_before=published_before)
        return {row["name"]: row["prediction_count"] for row in rows}

    def record_published(self, connection: Connection, dataset: str, prediction_count: int, now: datetime) -> bool:
        """Records that the progress up to `prediction_count` is published. Returns False if it already was."""
        return bool(
            queries.set_published_progress(connection, name=dataset, prediction_count=prediction_count, now=now)
        )

    def find_embeddings(
        self, connection: Connection, items: Sequence[str]
    ) -> dict[str, tuple[str, NDArray[np.float32]]]:
        """Returns the embeddings of the items, each with its space. Items without an embedding are omitted."""
        register_vector(connection)
        rows = queries.find_embeddings(connection, items=list(items))
        return {row["item"]: (row["space"], array_of(row["embedding"])) for row in rows}

    def find_embedding(self, connection: Connection, item: str) -> tuple[str, NDArray[np.float32]] | None:
        """Returns the space and the embedding of an item; None if it has none."""
        return self.find_embeddings(connection, [item]).get(item)

    def find_space(self, connection: Connection, dataset: str) -> str:
        """Returns the embedding space of most items of a dataset; empty if no item has an embedding."""
        return queries.find_space(connection, dataset=dataset) or ""

    def find_dimension(self, connection: Connection, dataset: str, space: str) -> int:
        """Returns the dimension of the embeddings of a space; 0 if there are none."""
        return int(queries.find_dimension(connection, dataset=dataset, space=space) or 0)

    def neighbours(
        self, connection: Connection, dataset: str, space: str, query: NDArray[np.float32], where: Where, limit: int
    ) -> list[tuple[Item, float]]:
        """Returns the items nearest to a vector by cosine distance, nearest first."""
        register_vector(connection)
        statement = (  # the filter is compiled to known columns and placeholders
            "SELECT items.*, embeddings.embedding <=> %(query)s AS distance FROM embeddings JOIN items ON items.name = embeddings.item "
            f"WHERE embeddings.dataset = %(dataset)s AND embeddings.space = %(space)s AND {where.sql} "
            "ORDER BY distance, items.name LIMIT %(limit)s"
        )
        values = {"query": Vector(query), "dataset": dataset, "space": space, "limit": limit, **where.parameters}
        return [(item_of(row), row["distance"]) for row in connection.execute(statement.encode(), values)]

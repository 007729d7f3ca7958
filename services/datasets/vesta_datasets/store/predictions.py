"""Predictions in PostgreSQL: in the table of items, with embeddings in a table of their own."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector
from psycopg.types.json import Jsonb
from vesta_common.errors import NotFound
from vesta_common.media.large_annotations import LargeAnnotations
from vesta_common.media.predictions import predicted_concepts
from vesta_common.resources.filters import Where
from vesta_common.storage.postgres import Connection
from vesta_contracts.common.v1 import Annotation, Prediction
from vesta_contracts.datasets.v1 import Item

from vesta_datasets.items.objects import figures_by_concept, figures_of
from vesta_datasets.store.rows import array_of, item_of
from vesta_datasets.store.statements import queries
from vesta_datasets.store.vectors import register_vectors
from vesta_datasets.task_types.predicted_objects import predicted_objects, with_object_scores

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


class NearestQuery(NamedTuple):
    """A search for the items nearest to a vector.

    Attributes:
        space: the embedding space of the vector.
        limit: of the items that are returned.
    """

    dataset: str
    space: str
    vector: NDArray[np.float32]
    where: Where
    limit: int


class NearestItems(NamedTuple):
    """The result of a search.

    Attributes:
        neighbours: items with their distances, nearest first.
        match_count: how many of the compared items exist and match the filter.
    """

    neighbours: list[tuple[Item, float]]
    match_count: int


class Predictions:
    """The predictions of items and the table of embeddings."""

    def __init__(self, large: LargeAnnotations) -> None:
        self._large = large

    def put(
        self,
        connection: Connection,
        dataset: str,
        model: ScoringModel,
        rows: Sequence[tuple[str, Prediction]],
    ) -> None:
        """Stores predictions of items. Those of an older generation of the same deployment are ignored. Of an item that occurs twice,
        the last one is stored. Objects that are stored apart are read, so that filters and selection count them.

        Raises:
            DataLoss: such objects are corrupt.
        """
        objects = dict[str, list[Annotation]]()
        said = dict(rows)
        for name, prediction in said.items():
            whole = self._whole(prediction)
            objects[name] = predicted_objects(whole)
            if prediction.HasField("stored") and not prediction.stored.is_segmentation_map:
                said[name] = with_object_scores(prediction, whole.annotations)
        figures = [figures_of(found) for found in objects.values()]
        by_concept = [figures_by_concept(found) for found in objects.values()]
        queries.lock_scored(connection, names=list(said))
        queries.put_scores(
            connection,
            names=list(said),
            scores=[prediction.SerializeToString() for prediction in said.values()],
            predicted=[Jsonb(predicted_concepts(prediction)) for prediction in said.values()],
            top_scores=[prediction.scores[0].score if prediction.scores else 0.0 for prediction in said.values()],
            margins=[prediction.margin for prediction in said.values()],
            uncertain=[prediction.uncertain for prediction in said.values()],
            object_counts=[found.object_count for found in figures],
            area_mins=[found.area_min_px for found in figures],
            area_maxs=[found.area_max_px for found in figures],
            figures=[Jsonb(found) if found else None for found in by_concept],
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

    def _whole(self, prediction: Prediction) -> Prediction:
        """Returns a prediction with objects that are stored apart; without them if their dataset was deleted, and its objects with it."""
        try:
            return self._large.whole(prediction)
        except NotFound:
            return prediction

    def put_embeddings(
        self,
        connection: Connection,
        dataset: str,
        model: ScoringModel,
        space: str,
        rows: Sequence[tuple[str, NDArray[np.float32]]],
    ) -> None:
        """Stores embeddings of items, after `put`. Skips items that are deleted or have predictions of a newer generation."""
        register_vectors(connection)
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
        register_vectors(connection)
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

    def nearest(
        self, connection: Connection, query: NearestQuery, candidates: Sequence[str] | None = None
    ) -> NearestItems:
        """Returns the items nearest to a vector by cosine distance, nearest first.

        Args:
            candidates: the names of the items that are compared; all items of the dataset if None.
        """
        register_vectors(connection)
        statement, values = nearest_statement(query, candidates)
        rows = connection.execute(statement.encode(), values).fetchall()
        match_count = rows[0]["match_count"] if rows else 0
        return NearestItems([(item_of(row), row["distance"]) for row in rows], match_count)


def nearest_statement(query: NearestQuery, candidates: Sequence[str] | None) -> tuple[str, dict[str, Any]]:
    """Returns the statement of `Predictions.nearest`, compiled from constants and placeholders, and its values."""
    values = {
        "vector": Vector(query.vector),
        "dataset": query.dataset,
        "space": query.space,
        "limit": query.limit,
        "candidates": None if candidates is None else list(candidates),
        **query.where.parameters,
    }
    among = "TRUE" if candidates is None else "embeddings.item = ANY(%(candidates)s)"
    # An embedding is deleted with its item, so that without a filter, only the items that are returned are read.
    matching = "" if query.where.condition is None else _MATCHING.format(where=query.where.sql)
    return _NEAREST.format(among=among, matching=matching), values


_NEAREST = """
SELECT items.*, near.distance, near.match_count
FROM (
    SELECT embeddings.item, embeddings.embedding <=> %(vector)s AS distance, count(*) OVER () AS match_count
    FROM embeddings
    WHERE embeddings.dataset = %(dataset)s AND embeddings.space = %(space)s AND {among} {matching}
    ORDER BY distance, embeddings.item LIMIT %(limit)s
) AS near JOIN items ON items.name = near.item ORDER BY near.distance, near.item
"""
_MATCHING = "AND EXISTS (SELECT FROM items WHERE items.name = embeddings.item AND {where})"

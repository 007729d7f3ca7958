"""The prediction log in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from vesta_common.clock import Clock
from vesta_common.errors import NotFound
from vesta_common.media.predictions import predicted_concepts
from vesta_common.resources.filters import Where
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.serving.v1 import Prediction

from vesta_serving.store.rows import DeploymentRow
from vesta_serving.store.statements import queries


class LoggedPredictions:
    """The table of logged predictions."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self._postgres = postgres
        self._clock = clock

    def get(self, connection: Connection, name: str) -> Prediction:
        """Returns an entry of the prediction log.

        Raises:
            NotFound: it does not exist, or its retention has passed.
        """
        row = queries.find_prediction(connection, name=name)
        if row is None:
            raise NotFound(f"{name} does not exist", reason="RESOURCE_NOT_FOUND", metadata={"name": name})
        return _prediction(row)

    def list_page(
        self, connection: Connection, deployment: DeploymentRow, where: Where, before: str, limit: int
    ) -> Sequence[Prediction]:
        """Returns entries with a name less than `before`, newest first, without those of an earlier deployment of the same name."""
        statement = (  # the filter consists of our own column names and placeholders
            "SELECT * FROM predictions WHERE deployment = %(deployment)s AND (%(before)s = '' OR name < %(before)s) "
            f"AND create_time >= %(since)s AND {where.sql} ORDER BY name DESC LIMIT %(limit)s"
        )
        values = {
            "deployment": deployment.name,
            "since": deployment.create_time,
            "before": before,
            "limit": limit,
            **where.parameters,
        }
        return [_prediction(row) for row in connection.execute(statement.encode(), values)]

    def append(self, predictions: Sequence[tuple[str, Prediction]]) -> None:
        """Adds entries to the prediction log."""
        with (
            self._postgres.transaction() as connection,
            connection.cursor() as cursor,
            cursor.copy(
                "COPY predictions"
                " (name, deployment, item, sha256, model_version, label, labels, score, uncertain, scores, create_time) FROM STDIN"
            ) as copy,
        ):
            for deployment, entry in predictions:
                best = entry.prediction.scores[0] if entry.prediction.scores else None
                copy.write_row(
                    (
                        entry.name,
                        deployment,
                        entry.item,
                        entry.sha256,
                        entry.prediction.model_version,
                        best.concept if best else "",
                        predicted_concepts(entry.prediction),
                        best.score if best else 0.0,
                        entry.prediction.uncertain,
                        entry.prediction.SerializeToString(),
                        self._clock.now(),
                    )
                )

    def prune(self, before: datetime, limit: int) -> int:
        """Deletes entries of the prediction log that are older than `before`, oldest first; returns their number."""
        with self._postgres.transaction() as connection:
            return int(queries.prune_predictions(connection, before=before, limit=limit))


def _prediction(row: dict[str, Any]) -> Prediction:
    prediction = Prediction(name=row["name"], item=row["item"], sha256=row["sha256"])
    prediction.prediction.ParseFromString(bytes(row["scores"]))
    prediction.create_time.FromDatetime(row["create_time"])
    return prediction

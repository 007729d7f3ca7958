"""The registry of models and their versions in PostgreSQL."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from vesta_common.clock import Clock
from vesta_common.messages import set_times
from vesta_common.resources.etags import with_etag
from vesta_common.resources.methods import existing
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection
from vesta_contracts.training.v1 import Model, ModelVersion, ModelVersionDeleted, TrainingRun

from vesta_training.store.publisher import Publisher
from vesta_training.store.statements import queries

NUMBER_MAX: Final = 2**31 - 1
"""More than the number of any version."""


class Models:
    """The tables of models and versions."""

    def __init__(self, clock: Clock, publisher: Publisher) -> None:
        self._clock = clock
        self._publisher = publisher

    def get(self, connection: Connection, name: str) -> Model:
        """Returns a model. Raises NotFound."""
        return _model(existing(queries.find_model(connection, name=name), name))

    def lock(self, connection: Connection, name: str) -> Model:
        """Locks a model until the end of the transaction. Raises NotFound."""
        return _model(existing(queries.lock_model(connection, name=name), name))

    def list_page(self, connection: Connection, parent: str, after: str, limit: int) -> list[Model]:
        """Lists the models of a project whose names are greater than `after`, ordered by name."""
        return [_model(row) for row in queries.list_models(connection, parent=parent, after=after, limit=limit)]

    def update(self, connection: Connection, model: Model) -> None:
        queries.update_model(connection, name=model.name, display_name=model.display_name, now=self._clock.now())

    def delete(self, connection: Connection, name: str) -> None:
        """Deletes a model without versions."""
        queries.delete_model(connection, name=name)

    def get_version(self, connection: Connection, name: str) -> ModelVersion:
        """Returns a version. Raises NotFound."""
        return ModelVersion.FromString(bytes(existing(queries.find_version(connection, name=name), name)["body"]))

    def list_versions(self, connection: Connection, model: str, before: int, limit: int) -> list[ModelVersion]:
        """Lists the versions of a model with numbers below `before`, newest first."""
        rows = queries.list_versions(connection, model=model, before=before, limit=limit)
        return [ModelVersion.FromString(bytes(row["body"])) for row in rows]

    def find_newest(self, connection: Connection, model: str) -> ModelVersion | None:
        """Returns the newest version of a model; None if it has none, or does not exist."""
        return next(iter(self.list_versions(connection, model, NUMBER_MAX, 1)), None)

    def lock_version(self, connection: Connection, name: str) -> ModelVersion:
        """Locks a version until the end of the transaction, so that no new run can use it as champion. Raises NotFound."""
        return ModelVersion.FromString(bytes(existing(queries.lock_version(connection, name=name), name)["body"]))

    def lock_versions(self, connection: Connection, model: str) -> list[ModelVersion]:
        """Locks all versions of a model, ordered by number; see `lock_version`."""
        return [ModelVersion.FromString(bytes(row["body"])) for row in queries.lock_versions(connection, model=model)]

    def delete_versions(self, connection: Connection, versions: Iterable[ModelVersion]) -> None:
        """Deletes versions, publishes ModelVersionDeleted, and schedules the deletion of their files."""
        now = self._clock.now()
        for version in versions:
            queries.delete_version(connection, name=version.name)
            queries.touch_model(connection, name=parent_of(version.name), now=now)
            queries.put_file_of_deleted(connection, object_key=version.onnx_key, model_version=version.name, now=now)
            deleted = ModelVersionDeleted(model_version=version.name, digest=version.digest)
            self._publisher.publish(connection, version.name, deleted)

    def register(self, connection: Connection, run: TrainingRun, version: ModelVersion, now: datetime) -> None:
        """Inserts the version of a run with the next number of its model. Sets its name in the run, and its origin in the version."""
        queries.put_model(connection, name=run.model, parent=parent_of(run.model), now=now)
        number = queries.next_version(connection, name=run.model, now=now)
        version.name = run.model_version = f"{run.model}/versions/{number}"
        version.training_run, version.snapshot, version.recipe = run.name, run.snapshot, run.recipe
        version.create_time.FromDatetime(now)
        queries.insert_version(
            connection,
            name=version.name,
            model=run.model,
            number=number,
            training_run=run.name,
            body=version.SerializeToString(),
            now=now,
        )


def _model(row: dict[str, Any]) -> Model:
    model = Model(name=row["name"], display_name=row["display_name"])
    if row["newest"]:
        model.latest_version = f"{row['name']}/versions/{row['newest']}"
    set_times(model, row, "create_time", "update_time")
    return with_etag(model)

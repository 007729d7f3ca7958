"""Recipes, runs, models and studies in PostgreSQL."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vesta_common.clock import Clock
from vesta_common.errors import AlreadyExists, Unavailable
from vesta_common.events import outbox
from vesta_common.events.cloudevents import new_event
from vesta_common.leases import Lease, Leases
from vesta_common.messages import copy_of, set_times, without
from vesta_common.resources.etags import with_etag
from vesta_common.resources.filters import Where
from vesta_common.resources.methods import existing, resource_of
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection, Postgres, load_queries
from vesta_contracts.training.v1 import (
    Estimate,
    Model,
    ModelVersion,
    ModelVersionDeleted,
    ModelVersionRegistered,
    Recipe,
    Study,
    TrainingProgress,
    TrainingRun,
    TrainingRunCancelled,
    TrainingRunFailed,
    TrainingRunProgressed,
    TrainingRunStarted,
    TrainingRunSucceeded,
)

from vesta_training.store.event_payloads import run_payload, version_payload
from vesta_training.store.studies import TrialRun

SERVICE = "training"

_RUN_APART = (
    "state",
    "waiting_reason",
    "progress",
    "attempt_count",
    "create_time",
    "start_time",
    "end_time",
    "etag",
)
"""Fields of a run that are stored in columns, or computed."""

LEASE_DURATION = timedelta(seconds=10)  # of a run

queries = load_queries("vesta_training")
_RUN_LEASES = Leases(
    "training_runs", LEASE_DURATION, unfinished="state IN ('QUEUED', 'RUNNING')", order="create_time, name"
)


@dataclass(frozen=True)
class ClaimedRun:
    """A run that this worker has claimed.

    Attributes:
        recipe_yaml: the recipe at the creation of the run; empty for runs of versions that did not store it.
        death_count: how often a process that trained the run has died.
        last_error: why the run was last released; empty if its worker crashed.
        cancel_requested: whether cancellation was requested while no worker had the run.
    """

    lease: Lease
    run: TrainingRun
    recipe_yaml: str
    death_count: int
    last_error: str
    cancel_requested: bool


@dataclass(frozen=True)
class DeletedFile:
    """A file in the object store that belonged to deleted versions."""

    object_key: str
    versions: tuple[str, ...]


class Store:
    """The tables of the service."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self.postgres = postgres
        self.clock = clock

    def count_unfinished_runs(self, connection: Connection) -> list[dict[str, Any]]:
        """Returns the number of unfinished runs by state, with the age of the oldest."""
        return list(queries.count_unfinished_runs(connection))

    def publish(self, connection: Connection, subject: str, payload: Any) -> None:
        """Publishes an event, in the transaction of the caller."""
        outbox.publish(connection, new_event(SERVICE, subject, payload, self.clock.now()))

    # Recipes

    def insert_recipe(self, connection: Connection, recipe: Recipe) -> None:
        """Inserts a recipe. Raises psycopg.errors.UniqueViolation if the name exists."""
        queries.insert_recipe(
            connection, name=recipe.name, parent=parent_of(recipe.name), body=_recipe_body(recipe), now=self.clock.now()
        )

    def find_recipe(self, connection: Connection, name: str) -> Recipe | None:
        """Returns a stored recipe; None if it does not exist."""
        row = queries.find_recipe(connection, name=name)
        return resource_of(Recipe, row) if row else None

    def lock_recipe(self, connection: Connection, name: str) -> Recipe:
        """Locks a stored recipe until the end of the transaction. Raises NotFound."""
        return resource_of(Recipe, existing(queries.lock_recipe(connection, name=name), name))

    def list_recipes(self, connection: Connection, parent: str, after: str, limit: int) -> list[Recipe]:
        """Lists the stored recipes of a project whose names are greater than `after`, ordered by name."""
        return [
            resource_of(Recipe, row)
            for row in queries.list_recipes(connection, parent=parent, after=after, limit=limit)
        ]

    def update_recipe(self, connection: Connection, recipe: Recipe) -> None:
        queries.update_recipe(connection, name=recipe.name, body=_recipe_body(recipe), now=self.clock.now())

    def delete_recipe(self, connection: Connection, name: str) -> None:
        queries.delete_recipe(connection, name=name)

    # Runs

    def insert_run(self, connection: Connection, run: TrainingRun, recipe_yaml: str) -> None:
        """Inserts a run in state QUEUED.

        Args:
            recipe_yaml: the current YAML of the recipe. Later changes of the recipe do not affect the run.

        Raises:
            psycopg.errors.UniqueViolation: the name exists.
            AlreadyExists: a version refers to a deleted run of this name.
            NotFound: the champion was deleted in the meantime.
        """
        if run.champion:
            existing(queries.share_version(connection, name=run.champion), run.champion)
        made = queries.find_version_of_run(connection, training_run=run.name)
        if made is not None:
            raise AlreadyExists(
                f"{run.name} made {made}, which names it for good; choose another id",
                reason="RESOURCE_EXISTS",
                metadata={"name": run.name},
            )
        queries.insert_run(
            connection,
            name=run.name,
            parent=parent_of(run.name),
            snapshot=run.snapshot,
            recipe=run.recipe,
            recipe_yaml=recipe_yaml,
            model=run.model,
            body=run.SerializeToString(),
            now=self.clock.now(),
        )

    def get_run(self, connection: Connection, name: str) -> TrainingRun:
        """Returns a run. Raises NotFound."""
        return self._runs(connection, [existing(queries.find_run(connection, name=name), name)])[0]

    def list_runs(
        self, connection: Connection, parent: str, where: Where, before: tuple[datetime, str], limit: int
    ) -> list[TrainingRun]:
        """Lists the runs of a project, newest first, starting after `before`."""
        statement = (
            "SELECT * FROM training_runs WHERE parent = %(parent)s AND (create_time, name) < (%(before_time)s, %(before_name)s) "
            f"AND {where.sql} ORDER BY create_time DESC, name DESC LIMIT %(limit)s"
        )
        values = {
            "parent": parent,
            "before_time": before[0],
            "before_name": before[1],
            "limit": limit,
            **where.parameters,
        }
        rows = connection.execute(statement.encode(), values).fetchall()
        return self._runs(connection, rows)

    def list_trial_runs(self, connection: Connection, studies: Iterable[Study]) -> dict[str, TrialRun]:
        """Returns the existing runs of the studies, by name."""
        names = [trial.training_run for study in studies for trial in study.trials]
        return {row["name"]: _trial_run(row) for row in queries.list_trial_runs(connection, names=names)}

    def open_runs(self) -> list[str]:
        """Returns the names of all unfinished runs."""
        with self.postgres.transaction() as connection:
            return [row["name"] for row in queries.list_open_runs(connection)]

    def list_open(self) -> list[TrainingRun]:
        """Returns all unfinished runs, with name and creation time only."""
        runs = []
        with self.postgres.transaction() as connection:
            for row in queries.list_open_runs(connection):
                run = TrainingRun(name=row["name"])
                set_times(run, row, "create_time")
                runs.append(run)
        return runs

    def claim_run(self, *, dies_with_worker: bool = True) -> ClaimedRun | None:
        """Claims the oldest unfinished run without a valid lease: new runs, released runs, and runs whose worker crashed.

        Args:
            dies_with_worker: whether the training dies with its worker. An expired lease then counts as a death of the run.
        """
        now = self.clock.now()
        with self.postgres.transaction() as connection:
            lease = _RUN_LEASES.claim(connection, now)
            if lease is None:
                return None
            row = queries.start_run(connection, **lease.key, now=now, dies_with_worker=dies_with_worker)
            claimed = ClaimedRun(
                lease=lease,
                run=self._runs(connection, [row])[0],
                recipe_yaml=row["recipe_yaml"],
                death_count=row["death_count"],
                last_error=row["waiting_reason"],
                cancel_requested=row["cancel_requested"],
            )
            self.publish(connection, claimed.run.name, TrainingRunStarted(training_run=run_payload(claimed.run)))
        return claimed

    def heartbeat(
        self,
        claimed: ClaimedRun,
        progress: TrainingProgress | None,
        pending_reason: str = "",
        *,
        publish_progress: bool,
    ) -> bool:
        """Renews the lease, and stores the progress and the reason why the training waits.

        Args:
            publish_progress: whether to publish the progress.

        Returns:
            Whether cancellation was requested.

        Raises:
            LeaseLost: another worker has the run, or it was finished or deleted.
        """
        name = claimed.run.name
        with self.postgres.transaction() as connection:
            row = _RUN_LEASES.renew(connection, claimed.lease, self.clock.now())
            queries.put_progress(
                connection,
                name=name,
                progress=progress.SerializeToString() if progress else None,
                pending_reason=pending_reason,
            )
            if progress is not None and publish_progress:
                self.publish(connection, name, TrainingRunProgressed(training_run=name, progress=progress))
        return bool(row["cancel_requested"])

    def release_run(self, claimed: ClaimedRun, reason: str = "", *, died: bool = False) -> None:
        """Releases a run to state QUEUED, so that it can be claimed immediately. Raises LeaseLost.

        Args:
            reason: the waiting reason.
            died: whether the process that trained the run died.
        """
        with self.postgres.transaction() as connection:
            _RUN_LEASES.verify(connection, claimed.lease)
            queries.requeue_run(connection, name=claimed.run.name, reason=reason, died=died)
            _RUN_LEASES.release(connection, claimed.lease)

    def let_go(self, claimed: ClaimedRun) -> None:
        """Releases the lease of a run whose training continues, so that another worker can claim it immediately."""
        with self.postgres.transaction() as connection:
            _RUN_LEASES.release(connection, claimed.lease)

    def succeed(
        self,
        claimed: ClaimedRun,
        run: TrainingRun,
        version: ModelVersion,
        held_out_accuracy: bytes | None,
        is_stored: Callable[[str], bool],
    ) -> str:
        """Registers the version and completes the run, with both events, in one transaction.

        Args:
            run: the claimed run with its results.
            held_out_accuracy: a serialised Estimate, by which studies compare recipes.
            is_stored: whether an object exists. Called for the file of the version, which a deletion of an identical version can delete.

        Returns:
            The name of the version.

        Raises:
            LeaseLost: another worker has the run, or it was finished or deleted.
            Unavailable: the file was deleted in the meantime; a retry stores it again.
        """
        run, version = copy_of(run), copy_of(version)
        with self.postgres.transaction() as connection:
            _RUN_LEASES.verify(connection, claimed.lease)
            now = self.clock.now()
            queries.lock_file(connection, object_key=version.onnx_key)
            if not is_stored(version.onnx_key):
                raise Unavailable(f"{version.onnx_key} was deleted with an equal version", reason="MODEL_FILE_DELETED")
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
            self._end(connection, run, TrainingRun.SUCCEEDED, held_out_accuracy)
            ended = run_payload(self.get_run(connection, run.name))
            self.publish(connection, run.name, TrainingRunSucceeded(training_run=ended))
            self.publish(connection, version.name, ModelVersionRegistered(model_version=version_payload(version)))
        return version.name

    def fail(self, claimed: ClaimedRun, error: str) -> None:
        """Completes the run as FAILED. Raises LeaseLost."""
        run = claimed.run
        run.error = error
        with self.postgres.transaction() as connection:
            _RUN_LEASES.verify(connection, claimed.lease)
            self._end(connection, run, TrainingRun.FAILED)
            self.publish(connection, run.name, TrainingRunFailed(training_run=self.get_run(connection, run.name)))

    def cancelled(self, claimed: ClaimedRun) -> None:
        """Completes the run as CANCELLED. Raises LeaseLost."""
        run = claimed.run
        with self.postgres.transaction() as connection:
            _RUN_LEASES.verify(connection, claimed.lease)
            self._end(connection, run, TrainingRun.CANCELLED)
            self.publish(connection, run.name, TrainingRunCancelled(training_run=self.get_run(connection, run.name)))

    def cancel(self, connection: Connection, name: str) -> TrainingRun:
        """Requests the cancellation of a run. A finished run is returned unchanged. Raises NotFound."""
        row = queries.request_cancel(connection, name=name, now=self.clock.now())
        run = self.get_run(connection, name)
        if row is not None and run.state == TrainingRun.CANCELLED:
            self.publish(connection, name, TrainingRunCancelled(training_run=run))
        return run

    def delete_run(self, connection: Connection, name: str) -> None:
        """Deletes a run. Its version is kept."""
        queries.delete_run(connection, name=name)

    def _end(
        self,
        connection: Connection,
        run: TrainingRun,
        state: "TrainingRun.State.ValueType",
        held_out_accuracy: bytes | None = None,
    ) -> None:
        queries.end_run(
            connection,
            name=run.name,
            state=TrainingRun.State.Name(state),
            body=_run_body(run),
            held_out_accuracy=held_out_accuracy,
            now=self.clock.now(),
        )

    def _runs(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> list[TrainingRun]:
        waiting = [row["name"] for row in rows if row["state"] == "QUEUED" and not row["waiting_reason"]]
        places = queries.list_places(connection, names=waiting) if waiting else ()
        before = {place["name"]: place["before"] for place in places}
        return [_run(row, before.get(row["name"], 0)) for row in rows]

    # Models

    def get_model(self, connection: Connection, name: str) -> Model:
        """Returns a model. Raises NotFound."""
        return _model(existing(queries.find_model(connection, name=name), name))

    def lock_model(self, connection: Connection, name: str) -> Model:
        """Locks a model until the end of the transaction. Raises NotFound."""
        return _model(existing(queries.lock_model(connection, name=name), name))

    def list_models(self, connection: Connection, parent: str, after: str, limit: int) -> list[Model]:
        """Lists the models of a project whose names are greater than `after`, ordered by name."""
        return [_model(row) for row in queries.list_models(connection, parent=parent, after=after, limit=limit)]

    def update_model(self, connection: Connection, model: Model) -> None:
        queries.update_model(connection, name=model.name, display_name=model.display_name, now=self.clock.now())

    def get_version(self, connection: Connection, name: str) -> ModelVersion:
        """Returns a version. Raises NotFound."""
        return ModelVersion.FromString(bytes(existing(queries.find_version(connection, name=name), name)["body"]))

    def list_versions(self, connection: Connection, model: str, before: int, limit: int) -> list[ModelVersion]:
        """Lists the versions of a model with numbers below `before`, newest first."""
        rows = queries.list_versions(connection, model=model, before=before, limit=limit)
        return [ModelVersion.FromString(bytes(row["body"])) for row in rows]

    def lock_version(self, connection: Connection, name: str) -> ModelVersion:
        """Locks a version until the end of the transaction, so that no new run can use it as champion. Raises NotFound."""
        return ModelVersion.FromString(bytes(existing(queries.lock_version(connection, name=name), name)["body"]))

    def lock_versions(self, connection: Connection, model: str) -> list[ModelVersion]:
        """Locks all versions of a model, ordered by number; see `lock_version`."""
        return [ModelVersion.FromString(bytes(row["body"])) for row in queries.lock_versions(connection, model=model)]

    def list_open_runs(self, connection: Connection, project: str) -> list[TrainingRun]:
        """Lists the unfinished runs of a project, as they were created."""
        rows = queries.list_open_run_bodies(connection, parent=project)
        return [TrainingRun.FromString(bytes(row["body"])) for row in rows]

    def delete_versions(self, connection: Connection, versions: Iterable[ModelVersion]) -> None:
        """Deletes versions, publishes ModelVersionDeleted, and schedules the deletion of their files."""
        now = self.clock.now()
        for version in versions:
            queries.delete_version(connection, name=version.name)
            queries.touch_model(connection, name=parent_of(version.name), now=now)
            queries.put_file_of_deleted(connection, object_key=version.onnx_key, model_version=version.name, now=now)
            deleted = ModelVersionDeleted(model_version=version.name, digest=version.digest)
            self.publish(connection, version.name, deleted)

    def delete_model(self, connection: Connection, name: str) -> None:
        """Deletes a model without versions."""
        queries.delete_model(connection, name=name)

    def list_deleted_files(self, limit: int) -> list[DeletedFile]:
        """Returns files of deleted versions that are due for deletion."""
        with self.postgres.transaction() as connection:
            rows = queries.list_files_of_deleted(connection, now=self.clock.now(), limit=limit)
            return [DeletedFile(row["object_key"], tuple(row["versions"])) for row in rows]

    def delete_file(self, file: DeletedFile, delete: Callable[[str], None]) -> None:
        """Deletes a file and its row, unless another version has the file. A lock prevents new versions with the file meanwhile."""
        with self.postgres.transaction() as connection:
            queries.lock_file(connection, object_key=file.object_key)
            taken = queries.take_file_of_deleted(connection, object_key=file.object_key)
            if taken and not queries.is_file_of_version(connection, object_key=file.object_key):
                delete(file.object_key)

    def postpone_file(self, file: DeletedFile, delay: timedelta) -> None:
        """Postpones the deletion of a file."""
        with self.postgres.transaction() as connection:
            queries.postpone_file_of_deleted(
                connection, object_key=file.object_key, retry_time=self.clock.now() + delay
            )

    # Studies

    def insert_study(self, connection: Connection, study: Study) -> None:
        """Inserts a study. Raises psycopg.errors.UniqueViolation if the name exists."""
        queries.insert_study(
            connection,
            name=study.name,
            parent=parent_of(study.name),
            body=study.SerializeToString(),
            now=self.clock.now(),
        )

    def find_study(self, connection: Connection, name: str) -> tuple[Study, bool]:
        """Returns a study as it was created, and whether it was cancelled. Raises NotFound."""
        return _study(existing(queries.find_study(connection, name=name), name))

    def list_studies(
        self, connection: Connection, parent: str, before: tuple[datetime, str], limit: int
    ) -> list[tuple[Study, bool]]:
        """Lists the studies of a project, newest first, starting after `before`."""
        rows = queries.list_studies(
            connection, parent=parent, before_time=before[0], before_name=before[1], limit=limit
        )
        return [_study(row) for row in rows]

    def delete_study(self, connection: Connection, name: str) -> None:
        """Deletes a study. Its runs are kept."""
        queries.delete_study(connection, name=name)

    def cancel_study(self, connection: Connection, name: str) -> None:
        """Marks a study as cancelled."""
        queries.cancel_study(connection, name=name)


def _recipe_body(recipe: Recipe) -> bytes:
    kept = Recipe(name=recipe.name, display_name=recipe.display_name, yaml=recipe.yaml)
    return kept.SerializeToString()


def _run(row: dict[str, Any], before: int) -> TrainingRun:
    """Converts a row to a run. `before` is its position in the queue: the number of runs that are claimed first."""
    run = TrainingRun.FromString(bytes(row["body"]))
    run.state = TrainingRun.State.Value(row["state"])
    run.attempt_count = row["attempt_count"]
    if row["progress"] is not None:
        run.progress.ParseFromString(bytes(row["progress"]))
    if run.state == TrainingRun.QUEUED:
        behind = f"behind {before} other run{'s' * (before != 1)}" if before else "for a worker to take it"
        run.waiting_reason = row["waiting_reason"] or behind
    elif run.state == TrainingRun.RUNNING:
        run.waiting_reason = row["pending_reason"]
    set_times(run, row, "create_time", "start_time", "end_time")
    return with_etag(run)


def _trial_run(row: dict[str, Any]) -> TrialRun:
    held_out = row["held_out_accuracy"]
    return TrialRun(
        state=TrainingRun.State.Value(row["state"]),
        end_time=row["end_time"],
        held_out_accuracy=Estimate.FromString(bytes(held_out)) if held_out is not None else None,
    )


def _run_body(run: TrainingRun) -> bytes:
    return without(run, *_RUN_APART).SerializeToString()


def _model(row: dict[str, Any]) -> Model:
    model = Model(name=row["name"], display_name=row["display_name"])
    if row["newest"]:
        model.latest_version = f"{row['name']}/versions/{row['newest']}"
    set_times(model, row, "create_time", "update_time")
    return with_etag(model)


def _study(row: dict[str, Any]) -> tuple[Study, bool]:
    study = Study.FromString(bytes(row["body"]))
    set_times(study, row, "create_time")
    return study, row["cancelled"]

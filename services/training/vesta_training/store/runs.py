"""Training runs in PostgreSQL. `run_queue` has what their workers write."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from vesta_common.clock import Clock
from vesta_common.errors import AlreadyExists
from vesta_common.messages import set_times
from vesta_common.resources.etags import with_etag
from vesta_common.resources.filters import Where
from vesta_common.resources.methods import existing
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.training.v1 import (
    Estimate,
    Study,
    TrainingRun,
    TrainingRunCancelled,
)

from vesta_training.store.publisher import Publisher
from vesta_training.store.statements import queries
from vesta_training.store.study_summary import TrialRun


class Runs:
    """The table of runs."""

    def __init__(self, postgres: Postgres, clock: Clock, publisher: Publisher) -> None:
        self._postgres = postgres
        self._clock = clock
        self._publisher = publisher

    def count_unfinished(self, connection: Connection) -> list[dict[str, Any]]:
        """Returns the number of unfinished runs by state, with the age of the oldest."""
        return list(queries.count_unfinished_runs(connection))

    def insert(self, connection: Connection, run: TrainingRun, recipe_yaml: str) -> None:
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
        version = queries.find_version_of_run(connection, training_run=run.name)
        if version is not None:
            raise AlreadyExists(
                f"{run.name} created {version}, which refers to it permanently; choose another id",
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
            now=self._clock.now(),
        )

    def get(self, connection: Connection, name: str) -> TrainingRun:
        """Returns a run. Raises NotFound."""
        return self.of_rows(connection, [existing(queries.find_run(connection, name=name), name)])[0]

    def list_page(
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
        return self.of_rows(connection, rows)

    def list_trials(self, connection: Connection, studies: Iterable[Study]) -> dict[str, TrialRun]:
        """Returns the existing runs of the studies, by name."""
        names = [trial.training_run for study in studies for trial in study.trials]
        return {row["name"]: _trial_run(row) for row in queries.list_trial_runs(connection, names=names)}

    def unfinished_names(self) -> list[str]:
        """Returns the names of all runs that are unfinished or to be measured."""
        with self._postgres.transaction() as connection:
            return [row["name"] for row in queries.list_open_runs(connection)]

    def list_unfinished(self) -> list[TrainingRun]:
        """Returns all runs that are unfinished or to be measured, with the fields that `work_name` reads."""
        runs = []
        with self._postgres.transaction() as connection:
            for row in queries.list_open_runs(connection):
                run = TrainingRun(name=row["name"], control_curve_pending=bool(row["curve_state"]))
                set_times(run, row, "create_time")
                runs.append(run)
        return runs

    def list_unfinished_of(self, connection: Connection, project: str) -> list[TrainingRun]:
        """Lists the unfinished runs of a project, as they were created."""
        rows = queries.list_open_run_bodies(connection, parent=project)
        return [TrainingRun.FromString(bytes(row["body"])) for row in rows]

    def request_cancel(self, connection: Connection, name: str) -> TrainingRun:
        """Requests the cancellation of a run, or of its measurement. Any other finished run is returned unchanged. Raises NotFound."""
        row = queries.request_cancel(connection, name=name, now=self._clock.now())
        run = self.get(connection, name)
        if row is not None and run.state == TrainingRun.CANCELLED:
            self._publisher.publish(connection, name, TrainingRunCancelled(training_run=run))
        return run

    def delete(self, connection: Connection, name: str) -> None:
        """Deletes a run. Its version is kept."""
        queries.delete_run(connection, name=name)

    def of_rows(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> list[TrainingRun]:
        """Returns the runs of rows, with the position of those in the queue."""
        waiting = [row["name"] for row in rows if row["state"] == "QUEUED" and not row["waiting_reason"]]
        places = queries.list_places(connection, names=waiting) if waiting else ()
        before = {row["name"]: row["before"] for row in places}
        return [_run(row, before.get(row["name"], 0)) for row in rows]


def _run(row: dict[str, Any], before: int) -> TrainingRun:
    """Converts a row to a run. `before` is its position in the queue: the number of runs that are claimed first."""
    run = TrainingRun.FromString(bytes(row["body"]))
    run.state = TrainingRun.State.Value(row["state"])
    run.attempt_count = row["attempt_count"]
    run.control_curve_pending = bool(row["curve_state"])
    if row["progress"] is not None:
        run.progress.ParseFromString(bytes(row["progress"]))
    if run.state == TrainingRun.QUEUED:
        position = f"behind {before} other run{'s' * (before != 1)}" if before else "for a free worker"
        run.waiting_reason = row["waiting_reason"] or position
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

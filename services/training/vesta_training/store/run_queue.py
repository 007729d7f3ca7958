"""Training runs and their workers in PostgreSQL: leases, progress and results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta

from vesta_common.clock import Clock
from vesta_common.errors import Unavailable
from vesta_common.leases import Heartbeat, Lease, Leases, Row
from vesta_common.messages import copy_of, without
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.training.v1 import (
    LearningCurvePoint,
    ModelVersion,
    ModelVersionRegistered,
    RandomLabels,
    TrainingProgress,
    TrainingRun,
    TrainingRunCancelled,
    TrainingRunFailed,
    TrainingRunMeasured,
    TrainingRunProgressed,
    TrainingRunStarted,
    TrainingRunSucceeded,
)

from vesta_training.store.event_payloads import run_payload, version_payload
from vesta_training.store.models import Models
from vesta_training.store.publisher import Publisher
from vesta_training.store.runs import Runs
from vesta_training.store.statements import queries

LEASE_DURATION = timedelta(seconds=10)
# Trainings come before the measurements of runs that succeeded within the last ten minutes, because people wait for models.
MEASUREMENT_DELAY = timedelta(minutes=10)
_RUN_LEASES = Leases(
    "training_runs",
    LEASE_DURATION,
    unfinished="state IN ('QUEUED', 'RUNNING') OR curve_state <> ''",
    order="coalesce(end_time + interval '10 minutes', create_time), name",
)

PENDING = "PENDING"
"""The state of a measurement that no worker has claimed."""
_FIELDS_OUTSIDE_BODY = (
    "state",
    "waiting_reason",
    "progress",
    "attempt_count",
    "control_curve_pending",
    "create_time",
    "start_time",
    "end_time",
    "etag",
)
"""Fields of a run that are stored in columns, or computed."""


@dataclass(frozen=True)
class ClaimedRun:
    """A run that this worker has claimed: to train it, or to measure its learning curve if `run.control_curve_pending`.

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


class RunQueue:
    """The leases on runs, and what the worker that has a run writes."""

    def __init__(self, postgres: Postgres, clock: Clock, publisher: Publisher, runs: Runs, models: Models) -> None:
        self._postgres = postgres
        self._clock = clock
        self._publisher = publisher
        self._runs = runs
        self._models = models

    def claim(self, *, dies_with_worker: bool = True) -> ClaimedRun | None:
        """Claims the oldest unfinished run without a valid lease: new runs, released runs, and runs whose worker crashed. Runs whose
        learning curve is to be measured follow ten minutes after their success, or if there are no others.

        Args:
            dies_with_worker: whether the training dies with its worker. An expired lease then counts as a death of the run.
        """
        now = self._clock.now()
        with self._postgres.transaction() as connection:
            lease = _RUN_LEASES.claim(connection, now)
            if lease is None:
                return None
            row = queries.start_run(connection, **lease.key, now=now, dies_with_worker=dies_with_worker)
            claimed = ClaimedRun(
                lease=lease,
                run=self._runs.of_rows(connection, [row])[0],
                recipe_yaml=row["recipe_yaml"],
                death_count=row["death_count"],
                last_error=row["waiting_reason"],
                cancel_requested=row["cancel_requested"],
            )
            if not claimed.run.control_curve_pending:
                started = TrainingRunStarted(training_run=run_payload(claimed.run))
                self._publisher.publish(connection, claimed.run.name, started)
        return claimed

    def heartbeat(self, claimed: ClaimedRun, interval: timedelta, on_cancel_request: Callable[[], None]) -> Heartbeat:
        """Returns a context manager that renews the lease while its block runs. Calls `on_cancel_request` in its thread."""

        def read_request(_: Connection, row: Row) -> None:
            if row["cancel_requested"]:
                on_cancel_request()

        return _RUN_LEASES.heartbeat(self._postgres, claimed.lease, self._clock, interval, read_request)

    def record_progress(
        self,
        claimed: ClaimedRun,
        progress: TrainingProgress | None,
        waiting_reason: str = "",
        *,
        publish_progress: bool,
    ) -> bool:
        """Stores the progress, and the reason why the training waits.

        Args:
            publish_progress: whether to publish the progress.

        Returns:
            Whether cancellation was requested.

        Raises:
            LeaseLost: another worker has the run, or it was finished or deleted.
        """
        name = claimed.run.name
        with self._postgres.transaction() as connection:
            _RUN_LEASES.verify(connection, claimed.lease)
            cancel_requested = queries.put_progress(
                connection,
                name=name,
                progress=progress.SerializeToString() if progress else None,
                pending_reason=waiting_reason,
            )
            if progress is not None and publish_progress:
                self._publisher.publish(connection, name, TrainingRunProgressed(training_run=name, progress=progress))
        return bool(cancel_requested)

    def is_preempted(self, claimed: ClaimedRun) -> bool:
        """Returns whether the run is being measured, and a training waits that `claim` would return before it."""
        if not claimed.run.control_curve_pending:
            return False
        created_before = claimed.run.end_time.ToDatetime(UTC) + MEASUREMENT_DELAY
        with self._postgres.transaction() as connection:
            waits = queries.training_waits(connection, now=self._clock.now(), created_before=created_before)
        return bool(waits)

    def release(self, claimed: ClaimedRun, reason: str = "", *, died: bool = False) -> None:
        """Releases a run to state QUEUED, or its measurement, so that it can be claimed immediately. Raises LeaseLost.

        Args:
            reason: the waiting reason.
            died: whether the process that trained the run died.
        """
        with self._postgres.transaction() as connection:
            _RUN_LEASES.verify(connection, claimed.lease)
            queries.requeue_run(connection, name=claimed.run.name, reason=reason, died=died)
            _RUN_LEASES.release(connection, claimed.lease)

    def release_lease(self, claimed: ClaimedRun) -> None:
        """Releases the lease of a run whose training continues, so that another worker can claim it immediately."""
        with self._postgres.transaction() as connection:
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

        If a learning curve is requested and something was measured, its measurement can be claimed from then on.

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
        with self._postgres.transaction() as connection:
            _RUN_LEASES.verify(connection, claimed.lease)
            now = self._clock.now()
            queries.lock_file(connection, object_key=version.onnx_key)
            if not is_stored(version.onnx_key):
                raise Unavailable(f"{version.onnx_key} was deleted with an equal version", reason="MODEL_FILE_DELETED")
            self._models.register(connection, run, version, now)
            curve_state = PENDING if run.control_curve and run.HasField("metrics") else ""
            self._end(connection, run, TrainingRun.SUCCEEDED, held_out_accuracy, curve_state)
            ended = run_payload(self._runs.get(connection, run.name))
            self._publisher.publish(connection, run.name, TrainingRunSucceeded(training_run=ended))
            self._publisher.publish(
                connection, version.name, ModelVersionRegistered(model_version=version_payload(version))
            )
        return version.name

    def end_measurement(
        self, claimed: ClaimedRun, points: Sequence[LearningCurvePoint], random_labels: RandomLabels
    ) -> None:
        """Adds the learning curve to a successful run, with its event. Raises LeaseLost."""
        run = copy_of(claimed.run)
        run.control_curve_points.extend(points)
        run.random_labels.CopyFrom(random_labels)
        with self._postgres.transaction() as connection:
            _RUN_LEASES.verify(connection, claimed.lease)
            queries.end_measurement(connection, name=run.name, body=_run_body(run))
            measured = run_payload(self._runs.get(connection, run.name))
            self._publisher.publish(connection, run.name, TrainingRunMeasured(training_run=measured))

    def fail(self, claimed: ClaimedRun, error: str) -> None:
        """Completes the run as FAILED. Raises LeaseLost."""
        run = claimed.run
        run.error = error
        with self._postgres.transaction() as connection:
            _RUN_LEASES.verify(connection, claimed.lease)
            self._end(connection, run, TrainingRun.FAILED)
            self._publisher.publish(
                connection, run.name, TrainingRunFailed(training_run=self._runs.get(connection, run.name))
            )

    def end_cancelled(self, claimed: ClaimedRun) -> None:
        """Completes the run as CANCELLED. Raises LeaseLost."""
        run = claimed.run
        with self._postgres.transaction() as connection:
            _RUN_LEASES.verify(connection, claimed.lease)
            self._end(connection, run, TrainingRun.CANCELLED)
            self._publisher.publish(
                connection, run.name, TrainingRunCancelled(training_run=self._runs.get(connection, run.name))
            )

    def _end(
        self,
        connection: Connection,
        run: TrainingRun,
        state: "TrainingRun.State.ValueType",
        held_out_accuracy: bytes | None = None,
        curve_state: str = "",
    ) -> None:
        queries.end_run(
            connection,
            name=run.name,
            state=TrainingRun.State.Name(state),
            body=_run_body(run),
            held_out_accuracy=held_out_accuracy,
            curve_state=curve_state,
            now=self._clock.now(),
        )


def _run_body(run: TrainingRun) -> bytes:
    return without(run, *_FIELDS_OUTSIDE_BODY).SerializeToString()

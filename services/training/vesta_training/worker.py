"""Workers: claim a run, train it with an executor, renew the lease and record the result. Other workers can take runs over at any time.

The learning curve of a run is measured by a claim of its own after its version is registered, so that nobody waits for it. A training that
is created in the meantime interrupts the measurement, which continues with its next fit afterwards.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog
from vesta_common.errors import Unavailable, VestaError, is_transient
from vesta_common.leases import LeaseLost
from vesta_common.messages import copy_of
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.training.v1 import (
    Comparison,
    LearningCurvePoint,
    ModelVersion,
    RandomLabels,
)

from vesta_training.errors import TrainingCancelled
from vesta_training.executors import DIED, Executor, Observation, State, work_name
from vesta_training.recipes.recipe_book import RecipeBook
from vesta_training.runs.exchange import Exchange
from vesta_training.runs.folders import LOST, remove_ended
from vesta_training.runs.job import CurveResult, RunResult
from vesta_training.runs.job_builder import DEFAULT_COMPUTE, Compute, Datasets, JobBuilder
from vesta_training.runs.recorder import Preempted, Recorder, Stopped, recording
from vesta_training.store import Store
from vesta_training.store.run_queue import ClaimedRun

HEARTBEAT_INTERVAL = timedelta(seconds=2)  # a worker notices cancellation within it
POLL = timedelta(milliseconds=100)
WORK_LOST = "TRAINING_WORK_LOST"
DEATHS_MAX = 5
RETRIED = "to be tried again: "

_DEATHS = {DIED, LOST, WORK_LOST}

log = structlog.get_logger()


class Worker:
    """Trains one run at a time. Any number of workers can run, in any number of replicas."""

    def __init__(
        self,
        store: Store,
        objects: ObjectStore,
        executor: Executor,
        recipes: RecipeBook,
        datasets: Datasets,
        work_folder: str,
        compute: Compute = DEFAULT_COMPUTE,
        heartbeat_interval: timedelta = HEARTBEAT_INTERVAL,
    ) -> None:
        self._store = store
        self._objects = objects
        self._executor = executor
        self._work_folder = Path(work_folder)
        self._jobs = JobBuilder(store, recipes, datasets, self._work_folder, compute)
        self._heartbeat_interval = heartbeat_interval
        self._pending_release: Callable[[], None] | None = None
        self._stopping = False

    def stop(self) -> None:
        """Makes the worker release its current run."""
        self._stopping = True

    def step(self) -> bool:
        """Claims a run and trains it. Returns False if no run can be claimed."""
        self._finish_release()
        remove_ended(self._work_folder, self._store.runs.unfinished_names)
        claimed = self._store.run_queue.claim(dies_with_worker=not self._executor.outlives_service)
        if claimed is None:
            self._executor.rest()
            return False
        run = claimed.run
        log.info("run_started", run=run.name, attempt=claimed.lease.attempt_count)
        work = work_name(run)
        try:
            self._attempt(claimed, work)
        except LeaseLost as error:
            log.warning("run_taken_over", run=run.name, error=str(error))
            self._hand_over(claimed, work)
        except Stopped:
            self._hand_over(claimed, work)
        except Preempted:
            log.info("measurement_preempted", run=run.name)
            self._executor.cancel(work)
            self._release(claimed, "until a training has ended")
        return True

    def _attempt(self, claimed: ClaimedRun, work: str) -> None:
        """Trains a run and records how that ended. Raises LeaseLost, Stopped, Preempted, and the error of a run that is to be retried."""
        run = claimed.run
        if claimed.cancel_requested or claimed.death_count >= DEATHS_MAX:
            self._executor.cancel(work)
            if claimed.cancel_requested:
                self._end_cancelled(claimed)
            else:
                self._fail(claimed, _given_up(claimed.last_error))
            self._remove_objects(work)
            return
        try:
            outcome = self._work(claimed, work)
            version = self._succeed(claimed, outcome)
        except (LeaseLost, Stopped, Preempted):
            raise
        except TrainingCancelled:
            self._executor.cancel(work)
            self._end_cancelled(claimed)
            self._remove_objects(work)
            log.info("run_cancelled", run=run.name)
        except Exception as error:
            if not self._executor.outlives_service:
                self._executor.cancel(work)
            if isinstance(error, VestaError) and not is_transient(error):
                log.warning("run_failed", run=run.name, error=str(error))
                self._fail(claimed, str(error))
                self._remove_objects(work)
                return
            log.warning("run_interrupted", run=run.name, error=str(error))
            # Unexpected errors count as a death too; otherwise the run would be retried for ever.
            died = not is_transient(error) or (isinstance(error, VestaError) and error.reason in _DEATHS)
            self._release(claimed, f"{RETRIED}{error}", died=died)
            raise
        else:
            log.info("run_succeeded", run=run.name, version=version)
            self._remove_objects(work)

    def _work(self, claimed: ClaimedRun, work: str) -> RunResult | CurveResult:
        """Adopts the existing work of the run, or starts it, and follows it until it ends."""
        with recording(self._store, claimed, self._heartbeat_interval, lambda: self._stopping) as recorder:
            return self._follow(claimed, work, recorder)

    def _follow(self, claimed: ClaimedRun, work: str, recorder: Recorder) -> RunResult | CurveResult:
        seen = self._executor.observe(work)
        if seen.error is not None and is_transient(seen.error):  # the failure of an earlier attempt
            self._executor.cancel(work)
            seen = self._executor.observe(work)
        while seen.state is State.ENDING:
            recorder.record(seen.progress, seen.waiting_reason)
            seen = self._executor.observe(work, POLL)
        if seen.state is State.ABSENT:
            self._executor.start(work, self._jobs.build(claimed))
            seen = Observation(State.PENDING)
        else:
            log.info("work_adopted", run=claimed.run.name, work=work)
        while True:
            recorder.record(seen.progress, seen.waiting_reason)
            if seen.outcome is not None:
                return seen.outcome
            if seen.error is not None:
                raise seen.error
            if seen.state in {State.ABSENT, State.ENDING}:
                raise Unavailable("its data was deleted during the training", reason=WORK_LOST)
            if seen.progress is not None:
                recorder.give_way()
            seen = self._executor.observe(work, POLL)

    def _hand_over(self, claimed: ClaimedRun, work: str) -> None:
        """Releases a run for another worker. Work that outlives the service continues."""
        if self._executor.outlives_service:
            self._pending_release = partial(self._store.run_queue.release_lease, claimed)
            self._finish_release()
        else:
            self._executor.cancel(work)
            self._release(claimed, "for a worker that takes it over")

    def _remove_objects(self, work: str) -> None:
        """Removes the objects of a finished run. If that fails, the sweeper removes them later."""
        try:
            Exchange(self._objects, work).remove()
        except VestaError as error:
            log.warning("work_removal_failed", work=work, error=str(error))

    def _release(self, claimed: ClaimedRun, reason: str, *, died: bool = False) -> None:
        """Releases a run. If PostgreSQL is unavailable, the next step retries, so that the outage does not count as a death."""
        self._pending_release = partial(self._store.run_queue.release, claimed, reason, died=died)
        self._finish_release()

    def _finish_release(self) -> None:
        if self._pending_release is None:
            return
        try:
            self._pending_release()
        except LeaseLost:
            log.info("run_already_released", reason="another worker has it, or it was finished or deleted")
        self._pending_release = None

    def _succeed(self, claimed: ClaimedRun, outcome: RunResult | CurveResult) -> str:
        """Records the result of a run, and returns the name of its version."""
        if isinstance(outcome, CurveResult):
            points = [LearningCurvePoint.FromString(point) for point in outcome.points]
            random_labels = RandomLabels.FromString(outcome.random_labels)
            self._store.run_queue.end_measurement(claimed, points, random_labels)
            return claimed.run.model_version
        run, version = copy_of(claimed.run), ModelVersion.FromString(outcome.version)
        if version.HasField("metrics"):
            run.metrics.CopyFrom(version.metrics)
        run.metrics_missing_reason = version.metrics_missing_reason
        if version.HasField("excluded"):
            run.excluded.CopyFrom(version.excluded)
        if outcome.comparison:
            run.comparison.CopyFrom(Comparison.FromString(outcome.comparison))
        run.device, run.thread_count = outcome.device, outcome.thread_count
        run.finetune_skipped_reason = outcome.finetune_skipped
        run.comparison_missing_reason = outcome.comparison_missing
        return self._store.run_queue.succeed(claimed, run, version, outcome.held_out_accuracy, self._objects.exists)

    def _fail(self, claimed: ClaimedRun, error: str) -> None:
        if claimed.run.control_curve_pending:
            reason = f"the learning curve could not be measured: {error}"
            self._store.run_queue.end_measurement(claimed, (), RandomLabels(reason=reason))
        else:
            self._store.run_queue.fail(claimed, error)

    def _end_cancelled(self, claimed: ClaimedRun) -> None:
        if claimed.run.control_curve_pending:
            reason = "the measurement of the learning curve was cancelled"
            self._store.run_queue.end_measurement(claimed, (), RandomLabels(reason=reason))
        else:
            self._store.run_queue.end_cancelled(claimed)


def _given_up(last_error: str) -> str:
    """Returns the error of a run that was interrupted too often."""
    why = last_error.removeprefix(RETRIED) or "the service was killed, probably because of insufficient memory"
    return (
        f"its training was interrupted {DEATHS_MAX} times; last cause: {why}. Fix the cause, "
        "or choose a smaller recipe, and start another run"
    )

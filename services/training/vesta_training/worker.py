"""Workers: claim a run, train it with an executor, renew the lease and record the result. Other workers can take runs over at any time."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog
from vesta_common.clock import Clock
from vesta_common.errors import NotFound, Unavailable, VestaError, is_transient
from vesta_common.leases import LeaseLost
from vesta_common.messages import copy_of
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.datasets.v1 import (
    DatasetServiceStub,
    GetDatasetRequest,
    GetSnapshotRequest,
    GetTaxonomyRequest,
    Snapshot,
    SnapshotServiceStub,
    SplitStatistics,
    TaxonomyServiceStub,
)
from vesta_contracts.training.v1 import (
    Comparison,
    LearningCurvePoint,
    ModelVersion,
    RandomLabels,
    TrainingProgress,
)

from vesta_training.errors import TrainingCancelled
from vesta_training.executors import DIED, Executor, Observation, State, work_name
from vesta_training.hardware import CPU
from vesta_training.recipes.recipe_book import RecipeBook
from vesta_training.runs.exchange import Exchange
from vesta_training.runs.folders import LOST, remove_ended
from vesta_training.runs.job import Job, RunResult
from vesta_training.store import Store
from vesta_training.store.run_queue import ClaimedRun

HEARTBEAT = timedelta(seconds=2)
PROGRESS_INTERVAL = timedelta(seconds=1)
POLL = timedelta(milliseconds=100)
WORK_LOST = "TRAINING_WORK_LOST"
DEATHS_MAX = 5
RETRIED = "to be tried again: "

_DEATHS = {DIED, LOST, WORK_LOST}

TEST = "TEST"
DEALT_MIN = 0.9  # share of the test items; near-duplicates follow the split of their group instead of their hash

log = structlog.get_logger()


class Stopped(Exception):
    """The service is stopping; the run is released for another worker."""


class Datasets:
    """The stubs of the datasets service."""

    def __init__(
        self, datasets: DatasetServiceStub, snapshots: SnapshotServiceStub, taxonomies: TaxonomyServiceStub
    ) -> None:
        self.datasets = datasets
        self.snapshots = snapshots
        self.taxonomies = taxonomies


@dataclass(frozen=True)
class Compute:
    """The compute resources of runs.

    Attributes:
        device: `auto`, `cpu` or `cuda`.
        threads: of each run.
        deadline_seconds: default deadline; 0 for none.
    """

    device: str = CPU
    threads: int = 1
    deadline_seconds: int = 0


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
        compute: Compute = Compute(),
    ) -> None:
        self._store = store
        self._objects = objects
        self._compute = compute
        self._executor = executor
        self._recipes = recipes
        self._datasets = datasets
        self._work_folder = Path(work_folder)
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
        return True

    def _attempt(self, claimed: ClaimedRun, work: str) -> None:
        """Trains a run and records how that ended. Raises LeaseLost, Stopped, and the error of a run that is to be retried."""
        run = claimed.run
        if claimed.cancel_requested or claimed.death_count >= DEATHS_MAX:
            self._executor.cancel(work)
            if claimed.cancel_requested:
                self._store.run_queue.end_cancelled(claimed)
            else:
                self._store.run_queue.fail(claimed, _given_up(claimed.last_error))
            self._remove_objects(work)
            return
        try:
            outcome = self._train(claimed, work)
            version = self._succeed(claimed, outcome)
        except (LeaseLost, Stopped):
            raise
        except TrainingCancelled:
            self._executor.cancel(work)
            self._store.run_queue.end_cancelled(claimed)
            self._remove_objects(work)
            log.info("run_cancelled", run=run.name)
        except Exception as error:
            if not self._executor.outlives_service:
                self._executor.cancel(work)
            if isinstance(error, VestaError) and not is_transient(error):
                log.warning("run_failed", run=run.name, error=str(error))
                self._store.run_queue.fail(claimed, str(error))
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

    def beat(
        self,
        claimed: ClaimedRun,
        progress: TrainingProgress | None,
        pending_reason: str = "",
        *,
        publish_progress: bool,
    ) -> bool:
        """Renews the lease and stores the progress. Returns whether cancellation was requested.

        Raises:
            LeaseLost: another worker has the run, or it was finished or deleted.
            Stopped: the service is stopping.
        """
        cancelled = self._store.run_queue.heartbeat(
            claimed, progress, pending_reason, publish_progress=publish_progress
        )
        if self._stopping:
            raise Stopped
        return cancelled

    def _train(self, claimed: ClaimedRun, work: str) -> RunResult:
        """Adopts the existing work of the run, or starts it, and follows it until it ends."""
        heartbeat = _Heartbeat(self, claimed)
        seen = self._executor.observe(work)
        if seen.error is not None and is_transient(seen.error):  # the failure of an earlier attempt
            self._executor.cancel(work)
            seen = self._executor.observe(work)
        while seen.state is State.ENDING:
            _send_heartbeat(heartbeat, seen)
            seen = self._executor.observe(work, POLL)
        if seen.state is State.ABSENT:
            self._executor.start(work, self._job(claimed))
            seen = Observation(State.PENDING)
        else:
            log.info("work_adopted", run=claimed.run.name, work=work)
        while True:
            _send_heartbeat(heartbeat, seen)
            if seen.outcome is not None:
                return seen.outcome
            if seen.error is not None:
                raise seen.error
            if seen.state in {State.ABSENT, State.ENDING}:
                raise Unavailable("its data was deleted during the training", reason=WORK_LOST)
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

    @property
    def clock(self) -> Clock:
        return self._store.clock

    def _job(self, claimed: ClaimedRun) -> Job:
        run = claimed.run
        concepts: tuple[str, ...] = ()
        digest, manifest_key, test_dealt = "", "", False
        if run.snapshot:
            snapshot = self._datasets.snapshots.GetSnapshot(GetSnapshotRequest(name=run.snapshot))
            dataset = self._datasets.datasets.GetDataset(GetDatasetRequest(name="/".join(run.snapshot.split("/")[:4])))
            taxonomy = self._datasets.taxonomies.GetTaxonomy(GetTaxonomyRequest(name=dataset.taxonomy))
            concepts = tuple(concept.id for concept in taxonomy.concepts)
            digest, manifest_key, test_dealt = snapshot.digest, snapshot.manifest_key, _is_test_dealt(snapshot)
        champion, champion_missing = ModelVersion(), ""
        if run.champion:
            try:
                with self._store.postgres.transaction() as connection:
                    champion = self._store.models.get_version(connection, run.champion)
            except NotFound:
                champion_missing = (
                    f"the champion {run.champion} was deleted; set model_version of the deployment to another version"
                )
        return Job(
            run=run.name,
            recipe_name=run.recipe.rpartition("/")[2],
            recipe_yaml=claimed.recipe_yaml or self._recipes.get(run.recipe).yaml,
            concepts=concepts,
            snapshot=run.snapshot,
            snapshot_digest=digest,
            manifest_key=manifest_key,
            champion=run.champion,
            champion_key=champion.onnx_key,
            champion_digest=champion.digest,
            control_curve=run.control_curve,
            test_dealt=test_dealt,
            seed=run.seed,
            work_folder=str(self._work_folder),
            device=self._compute.device,
            threads=self._compute.threads,
            champion_missing=champion_missing,
            deadline_seconds=int(run.deadline.ToTimedelta().total_seconds()) or self._compute.deadline_seconds,
        )

    def _succeed(self, claimed: ClaimedRun, outcome: RunResult) -> str:
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
        run.control_curve_points.extend(LearningCurvePoint.FromString(point) for point in outcome.curve)
        if outcome.random_labels is not None:
            run.random_labels.CopyFrom(RandomLabels.FromString(outcome.random_labels))
        return self._store.run_queue.succeed(claimed, run, version, outcome.held_out_accuracy, self._objects.exists)


def _is_test_dealt(snapshot: Snapshot) -> bool:
    """Whether the test split is a random sample: its items were assigned by content hash and not by the caller."""
    found = next((side for side in snapshot.statistics.splits if side.split == TEST), SplitStatistics())
    return bool(found.item_count and found.hash_assigned_count >= DEALT_MIN * found.item_count)


def _given_up(last_error: str) -> str:
    """Returns the error of a run that was interrupted too often."""
    why = last_error.removeprefix(RETRIED) or "the service was killed, probably because of insufficient memory"
    return (
        f"its training was interrupted {DEATHS_MAX} times; last cause: {why}. Fix the cause, "
        "or choose a smaller recipe, and start another run"
    )


def _send_heartbeat(heartbeat: "_Heartbeat", seen: Observation) -> None:
    if heartbeat(seen.progress, seen.waiting_reason):
        raise TrainingCancelled("cancelled")


class _Heartbeat:
    """Sends heartbeats at the required interval, and progress at most once per second."""

    def __init__(self, worker: Worker, claimed: ClaimedRun) -> None:
        self._worker = worker
        self._claimed = claimed
        self._last_heartbeat = worker.clock.now()
        self._last_published = self._last_heartbeat - PROGRESS_INTERVAL
        self._progress: TrainingProgress | None = None
        self._pending_reason = ""

    def __call__(self, progress: TrainingProgress | None, pending_reason: str = "") -> bool:
        now = self._worker.clock.now()
        if progress is not None:
            progress.heartbeat_time.FromDatetime(now)
            self._progress = progress
        publish_progress = self._progress is not None and now - self._last_published >= PROGRESS_INTERVAL
        same = pending_reason == self._pending_reason
        if same and not publish_progress and now - self._last_heartbeat < HEARTBEAT:
            return False
        self._pending_reason = pending_reason
        cancelled = self._worker.beat(self._claimed, self._progress, pending_reason, publish_progress=publish_progress)
        self._last_heartbeat = now
        if publish_progress:
            self._last_published, self._progress = now, None
        return cancelled

"""Workers: a run has one worker at a time, also after crashes and outages, and completes once."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import OperationalError
from training_service import PROJECT, Training, eventually, refusal
from vesta_common.errors import InvalidArgument, Unavailable
from vesta_common.leases import LeaseLost
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.training.v1 import (
    CancelTrainingRunRequest,
    DeleteTrainingRunRequest,
    ExclusionCounts,
    ModelVersion,
    TrainingRun,
)
from vesta_training import errors
from vesta_training.executors import work_name
from vesta_training.recipes.recipe import builtin_yaml
from vesta_training.runs.exchange import Exchange
from vesta_training.runs.folders import run_folder
from vesta_training.runs.job import Job, run_job
from vesta_training.settings import Settings
from vesta_training.store import Store
from vesta_training.store.publisher import Publisher
from vesta_training.store.run_queue import LEASE_DURATION, ClaimedRun, RunQueue
from vesta_training.sweeper import Sweeper
from vesta_training.worker import DEATHS_MAX


class AwayEveryOtherTime(RunQueue):
    """A queue that fails when a run is released, and works again at the retry."""

    away = False

    def release(self, claimed: ClaimedRun, reason: str = "", *, died: bool = False) -> None:
        self.away = not self.away
        if self.away:
            raise OperationalError("the database is away")
        super().release(claimed, reason, died=died)


def store_with(queue: type[RunQueue], training: Training) -> Store:
    """A store whose queue of runs is of this class."""
    store = Store(training.store.postgres, training.clock)
    store.run_queue = queue(store.postgres, store.clock, Publisher(store.clock), store.runs, store.models)
    return store


def test_a_run_of_a_killed_worker_is_claimed_by_another_and_fenced(training: Training) -> None:
    run = training.a_run()
    dead = training.store.run_queue.claim()
    assert dead is not None
    assert training.store.run_queue.claim() is None
    training.clock.advance(LEASE_DURATION + timedelta(seconds=1))
    assert training.worker.step()
    with pytest.raises(LeaseLost):
        training.store.run_queue.record_progress(dead, None, publish_progress=False)
    assert (training.get(run).state, training.get(run).attempt_count) == (TrainingRun.SUCCEEDED, 2)


def test_a_worker_whose_training_makes_no_progress_keeps_its_lease(training: Training) -> None:
    run = training.a_run()
    claimed_meanwhile = []

    def is_renewed() -> bool:
        with training.store.postgres.connect() as connection:
            (row,) = connection.execute("SELECT lease_expire_time FROM training_runs")
        return bool(row["lease_expire_time"] == training.clock.now() + LEASE_DURATION)

    def exceed_the_lease() -> None:
        for _ in range(2):
            training.clock.advance(LEASE_DURATION * 0.9)
            eventually(is_renewed)
        claimed_meanwhile.append(training.store.run_queue.claim())

    training.executor.before_observing = exceed_the_lease
    assert training.worker_on(training.store, heartbeat_interval=timedelta(milliseconds=20)).step()
    assert set(claimed_meanwhile) == {None}
    assert (training.get(run).state, training.get(run).attempt_count) == (TrainingRun.SUCCEEDED, 1)


def test_a_crashed_process_is_restarted_and_repeated_crashes_fail_the_run(training: Training) -> None:
    run = training.a_run()
    for _ in range(DEATHS_MAX):
        training.executor.fails.append(Unavailable("it died", reason="TRAINING_PROCESS_DIED"))
        with pytest.raises(Unavailable):
            training.worker.step()
        assert training.get(run).state == TrainingRun.QUEUED
    training.worker.step()
    assert training.get(run).state == TrainingRun.FAILED
    assert f"interrupted {DEATHS_MAX} times; last cause: it died" in training.get(run).error


def test_a_run_whose_files_are_deleted_repeatedly_fails_with_its_reason(training: Training) -> None:
    run = training.a_run()
    for _ in range(DEATHS_MAX):
        training.executor.fails.append(Unavailable("files of the run were deleted", reason="WORK_FOLDER_LOST"))
        with pytest.raises(Unavailable):
            training.worker.step()
        assert training.get(run).state == TrainingRun.QUEUED
    training.worker.step()
    assert training.get(run).state == TrainingRun.FAILED
    assert "files of the run were deleted" in training.get(run).error


def test_a_run_waits_for_unavailable_services_and_reports_it(training: Training) -> None:
    run = training.a_run()
    for _ in range(2 * DEATHS_MAX):
        training.executor.fails.append(Unavailable("datasets does not respond"))
        with pytest.raises(Unavailable):
            training.worker.step()
        assert "datasets does not respond" in training.get(run).waiting_reason
    training.worker.step()
    assert (training.get(run).state, training.get(run).waiting_reason) == (TrainingRun.SUCCEEDED, "")


def test_a_lease_that_expired_during_a_database_outage_counts_as_no_crash(training: Training) -> None:
    run = training.a_run()
    worker = training.worker_on(store_with(AwayEveryOtherTime, training))
    for _ in range(2 * DEATHS_MAX):
        training.executor.fails.append(Unavailable("datasets does not respond"))
        with pytest.raises(OperationalError):
            worker.step()
        training.clock.advance(LEASE_DURATION + timedelta(seconds=1))
    worker.step()
    assert training.get(run).state == TrainingRun.SUCCEEDED


def test_unexpected_errors_are_reported_and_retried_a_limited_number_of_times(training: Training) -> None:
    run = training.a_run()
    for _ in range(DEATHS_MAX):
        training.executor.fails.append(RuntimeError("a wheel came off"))
        with pytest.raises(RuntimeError):
            training.worker.step()
        assert "a wheel came off" in training.get(run).waiting_reason
    training.worker.step()
    assert training.get(run).state == TrainingRun.FAILED


def test_a_run_that_waits_for_services_can_be_cancelled(training: Training) -> None:
    run = training.a_run()
    training.executor.fails.append(Unavailable("datasets does not respond"))
    with pytest.raises(Unavailable):
        training.worker.step()
    assert training.runs.CancelTrainingRun(CancelTrainingRunRequest(name=run.name)).state == TrainingRun.CANCELLED


def test_a_worker_whose_lease_expired_does_not_finish_the_run(training: Training) -> None:
    run = training.a_run()
    slow = training.store.run_queue.claim()
    assert slow is not None
    training.clock.advance(LEASE_DURATION + timedelta(seconds=1))
    assert training.store.run_queue.claim() is not None
    with pytest.raises(LeaseLost):
        training.store.run_queue.succeed(
            slow, slow.run, ModelVersion(onnx_key="models/x"), None, training.objects.exists
        )
    with pytest.raises(LeaseLost):
        training.store.run_queue.fail(slow, "it seems to have failed")
    with pytest.raises(LeaseLost):
        training.store.run_queue.end_cancelled(slow)
    training.store.run_queue.release_lease(slow)
    assert (training.get(run).state, training.get(run).error) == (TrainingRun.RUNNING, "")


def test_a_worker_that_loses_its_lease_during_registration_leaves_the_work_to_the_next(
    training: Training,
) -> None:
    run = training.a_run()
    exchange = Exchange(training.objects, work_name(run))
    exchange.fail(errors.LearningError("of the next worker"))

    class Overtaken(RunQueue):
        def succeed(self, *args: Any) -> str:
            training.clock.advance(LEASE_DURATION)
            assert training.store.run_queue.claim() is not None
            return super().succeed(*args)

    assert training.worker_on(store_with(Overtaken, training)).step()
    assert (training.get(run).state, training.get(run).model_version) == (TrainingRun.RUNNING, "")
    assert exchange.find_result() is not None


def test_a_run_reports_excluded_items_and_why_metrics_are_missing(training: Training) -> None:
    training.executor.adds = ModelVersion(
        metrics_missing_reason="No test item is labelled.", excluded=ExclusionCounts(shapes_only_count=3)
    )
    run = training.a_run()
    training.worker.step()
    ended = training.get(run)
    assert (ended.metrics_missing_reason, ended.excluded.shapes_only_count) == ("No test item is labelled.", 3)


def test_a_learning_error_fails_the_run_with_its_reason(training: Training) -> None:
    run = training.a_run()
    training.executor.fails.append(errors.TooFewLabelsError("one concept is no choice; label another"))
    training.worker.step()
    assert (training.get(run).state, training.get(run).error) == (
        TrainingRun.FAILED,
        "one concept is no choice; label another",
    )
    assert training.event_types()[-1] == "failed"


def test_a_deleted_champion_leaves_the_run_uncompared_with_a_reason(training: Training) -> None:
    training.a_run("a")
    training.worker.step()
    run = training.a_run("b", champion=f"{PROJECT}/models/vans/versions/1")
    with training.store.postgres.transaction() as connection:
        connection.execute("DELETE FROM model_versions")
    training.worker.step()
    ended = training.get(run)
    assert (ended.state, ended.HasField("comparison")) == (TrainingRun.SUCCEEDED, False)
    assert ended.comparison_missing_reason.startswith(f"the champion {PROJECT}/models/vans/versions/1 was deleted")


def test_a_champion_without_its_file_leaves_the_run_uncompared_with_a_reason(
    service_settings: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    settings = Settings(
        **service_settings("training"),
        datasets_address="127.0.0.1:1",
        serving_address="127.0.0.1:1",
        work_folder=str(tmp_path),
    )
    champion = f"{PROJECT}/models/vans/versions/1"
    job = Job(
        run="run",
        recipe_name="embedding",
        recipe_yaml=builtin_yaml("embedding"),
        concepts=(),
        snapshot="",
        snapshot_digest="",
        manifest_key="",
        champion=champion,
        champion_key="models/gone",
        champion_digest="0" * 64,
        seed=0,
        work_folder=str(tmp_path),
    )
    objects = ObjectStore.of(settings)
    outcome = run_job(job, objects, lambda news: None)
    objects.close()
    assert outcome.comparison_missing.startswith(f"the file of the champion {champion} is missing in the object store")


def test_the_folder_of_a_run_is_deleted_when_the_run_has_ended(training: Training, tmp_path: Path) -> None:
    runs = [training.a_run(run_id) for run_id in ("cancelled", "deleted", "waiting")]
    folders = [run_folder(tmp_path, run.name) for run in runs]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "finetune.checkpoint").touch()
    for run in runs[:2]:
        training.runs.CancelTrainingRun(CancelTrainingRunRequest(name=run.name))
    training.runs.DeleteTrainingRun(DeleteTrainingRunRequest(name=runs[1].name))
    training.executor.fails.append(Unavailable("datasets does not respond"))
    with pytest.raises(Unavailable):
        training.worker.step()
    assert [folder.exists() for folder in folders] == [False, False, True]


@pytest.mark.parametrize(
    ("item_count", "hash_assigned_count", "is_sample"),
    [(0, 0, False), (100, 100, True), (100, 92, True), (100, 21, False)],
)
def test_a_test_split_is_a_random_sample_if_nearly_all_of_it_was_assigned_by_hash(
    training: Training, item_count: int, hash_assigned_count: int, is_sample: bool
) -> None:
    training.snapshots.test_item_count, training.snapshots.test_hash_assigned_count = item_count, hash_assigned_count
    training.a_run("sampled")
    training.worker.step()
    assert training.executor.jobs[-1].test_split_is_random == is_sample


def test_a_queued_run_has_a_reason_until_it_starts(training: Training) -> None:
    run = training.a_run()
    seen: list[str] = []

    class Watching(RunQueue):
        def record_progress(self, *args: Any, **fields: Any) -> bool:
            kept = super().record_progress(*args, **fields)
            seen.append(training.get(run).waiting_reason)
            return kept

    training.executor.waits = ["0/3 nodes are available: 3 Insufficient nvidia.com/gpu."]
    training.worker_on(store_with(Watching, training)).step()
    assert seen[0] == "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    assert (training.get(run).state, training.get(run).waiting_reason) == (TrainingRun.SUCCEEDED, "")


def test_a_queued_run_can_be_cancelled(training: Training) -> None:
    run = training.a_run()

    class Cancelling(RunQueue):
        def record_progress(self, *args: Any, **fields: Any) -> bool:
            training.runs.CancelTrainingRun(CancelTrainingRunRequest(name=run.name))
            return super().record_progress(*args, **fields)

    training.executor.waits = ["no node"]
    training.worker_on(store_with(Cancelling, training)).step()
    assert training.get(run).state == TrainingRun.CANCELLED
    assert training.executor.work == {}


def test_a_restarted_service_adopts_running_work_and_starts_nothing_twice(training: Training) -> None:
    training.executor.outlives_service = True
    run = training.a_run()
    training.executor.waits = ["pulling the image"] * 2
    stopped = training.worker_on(training.store)
    stopped.stop()
    stopped.step()
    assert training.get(run).state == TrainingRun.RUNNING
    training.worker.step()
    assert training.get(run).state == TrainingRun.SUCCEEDED
    assert len(training.executor.jobs) == 1


def test_crashes_of_the_service_do_not_count_against_a_run_that_continues(training: Training) -> None:
    training.executor.outlives_service = True
    run = training.a_run()
    for _ in range(2 * DEATHS_MAX):
        assert training.store.run_queue.claim(dies_with_worker=False) is not None
        training.clock.advance(LEASE_DURATION + timedelta(seconds=1))
    training.worker.step()
    assert training.get(run).state == TrainingRun.SUCCEEDED


def test_work_of_a_deleted_run_is_ended_and_removed(training: Training) -> None:
    training.executor.work["train-orphan-0123456789ab"] = Job("r", "embedding", "", (), "", "", "", "", "", "", 0, "")
    Exchange(training.objects, "train-gone-0123456789ab").fail(errors.LearningError("no"))
    kept = training.a_run()
    training.executor.work[work_name(kept)] = Job("r", "embedding", "", (), "", "", "", "", "", "", 0, "")
    Sweeper(training.store, training.objects, training.executor).step()
    assert list(training.executor.work) == [work_name(kept)]
    assert Exchange(training.objects, "train-gone-0123456789ab").find_result() is None


def test_an_invalid_deadline_is_rejected(training: Training) -> None:
    refusal(InvalidArgument, lambda: training.a_run(deadline={"seconds": 0}), "DEADLINE_OUT_OF_RANGE")
    training.a_run(deadline={"seconds": 60})
    training.worker.step()
    assert training.executor.jobs[-1].deadline_seconds == 60


def test_a_run_whose_work_was_deleted_externally_is_restarted(training: Training) -> None:
    run = training.a_run()

    class Deleting(RunQueue):
        def record_progress(self, *args: Any, **fields: Any) -> bool:
            training.executor.work.clear()
            return super().record_progress(*args, **fields)

    training.executor.waits = ["no node"]
    with pytest.raises(Unavailable) as lost:
        training.worker_on(store_with(Deleting, training)).step()
    assert lost.value.reason == "TRAINING_WORK_LOST"
    training.executor.waits = []
    training.worker.step()
    assert training.get(run).state == TrainingRun.SUCCEEDED
    assert len(training.executor.jobs) == 2

"""The contract tests of executors; the tests of each executor inherit them."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol

from vesta_common.storage.objects import ObjectStore
from vesta_contracts.training.v1 import ModelVersion
from vesta_training.executors import Executor, Observation, State
from vesta_training.recipes.recipe import builtin_yaml
from vesta_training.runs.exchange import Exchange
from vesta_training.runs.job import Job

WORK = "train-r-0123456789ab"
OTHER_WEIGHTS = builtin_yaml("embedding").replace("value: packaged", f"value: {'a' * 64}")  # this file is not stored
PATIENCE = timedelta(milliseconds=50)
WAIT_SECONDS = 60


class Place(Protocol):
    """An executor, with methods to control its environment."""

    objects: ObjectStore
    executor: Executor

    def another(self) -> Executor:
        """Returns the executor of a restarted service."""
        ...

    def job(self, **fields: Any) -> Job:
        """Returns the job of an embedding run, which takes a second or two."""
        ...

    def go_on(self, work: str) -> None:
        """Makes the work finish; does nothing if it runs by itself."""
        ...

    def kill(self, work: str) -> None:
        """Kills the process of the work."""
        ...

    def count_started(self, work: str) -> int:
        """Returns the number of processes or Jobs of this name."""
        ...


def until(executor: Executor, work: str, fits: Callable[[Observation], bool]) -> Observation:
    """Observes the work until a condition is met."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        seen = executor.observe(work, PATIENCE)
        if fits(seen):
            return seen
    raise AssertionError(f"the work is still {seen}")


def end_of(executor: Executor, work: str) -> Observation:
    return until(executor, work, lambda seen: seen.state not in {State.PENDING, State.RUNNING, State.ENDING})


def an_embedding(work_folder: str, **fields: Any) -> Job:
    plain = Job(
        run="run",
        recipe_name="embedding",
        recipe_yaml=builtin_yaml("embedding"),
        concepts=(),
        snapshot="",
        snapshot_digest="",
        manifest_key="",
        champion="",
        champion_key="",
        champion_digest="",
        seed=0,
        work_folder=work_folder,
    )
    return replace(plain, **fields)


class ExecutorContract:
    """The contract of executors. Subclasses provide the fixture `place`."""

    def test_work_that_was_not_started_is_absent_and_can_be_cancelled(self, place: Place) -> None:
        assert place.executor.observe(WORK).state is State.ABSENT
        place.executor.cancel(WORK)

    def test_work_ends_with_its_result(self, place: Place) -> None:
        place.executor.start(WORK, place.job())
        assert WORK in place.executor.list_work()
        place.go_on(WORK)
        seen = end_of(place.executor, WORK)
        assert seen.outcome is not None
        assert ModelVersion.FromString(seen.outcome.version).embedding_dimension == 1280

    def test_work_that_is_started_twice_runs_once(self, place: Place) -> None:
        place.executor.start(WORK, place.job())
        place.executor.start(WORK, place.job())
        assert place.count_started(WORK) == 1

    def test_the_executor_of_a_restarted_service_reads_finished_work(self, place: Place) -> None:
        place.executor.start(WORK, place.job())
        place.go_on(WORK)
        assert end_of(place.executor, WORK).state is State.SUCCEEDED
        assert place.another().observe(WORK).state is State.SUCCEEDED

    def test_a_learning_error_has_a_reason(self, place: Place) -> None:
        place.executor.start(WORK, place.job(recipe_yaml=OTHER_WEIGHTS))
        place.go_on(WORK)
        seen = end_of(place.executor, WORK)
        assert seen.state is State.FAILED
        assert "a" * 64 in str(seen.error)

    def test_work_reports_its_progress(self, place: Place) -> None:
        place.executor.start(WORK, place.job())
        place.go_on(WORK)
        until(place.executor, WORK, lambda seen: seen.progress is not None or seen.state is State.SUCCEEDED)
        assert Exchange(place.objects, WORK).find_progress() is not None

    def test_cancelled_work_is_absent_and_can_be_restarted(self, place: Place) -> None:
        place.executor.start(WORK, place.job())
        place.executor.cancel(WORK)
        until(place.executor, WORK, lambda seen: seen.state is State.ABSENT)
        assert WORK not in place.executor.list_work()
        place.executor.start(WORK, place.job())
        assert place.count_started(WORK) == 1

    def test_work_past_its_deadline_fails_with_its_reason(self, place: Place) -> None:
        place.executor.start(WORK, place.job(deadline_seconds=1))
        seen = end_of(place.executor, WORK)
        assert seen.state is State.FAILED
        assert "deadline of 1 s" in str(seen.error)

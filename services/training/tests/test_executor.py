"""The child process executor: cancellation, crashes and deadlines."""

import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from executors_contract import WORK, ExecutorContract, an_embedding, end_of
from vesta_common.errors import Unavailable
from vesta_common.storage.objects import ObjectStore
from vesta_training.executors import Executor, State
from vesta_training.executors.local import LocalProcessExecutor
from vesta_training.runs.job import Job
from vesta_training.settings import Settings


class OneProcess:
    """The local executor, with a clock that the test advances."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._executors: list[LocalProcessExecutor] = []
        self.objects = ObjectStore.of(settings)
        self.seconds = 0.0
        self.cancel_timeout = timedelta(milliseconds=100)
        self.executor = self.another()

    def another(self) -> LocalProcessExecutor:
        made = LocalProcessExecutor(self._settings, lambda: self.seconds, self.cancel_timeout)
        self._executors.append(made)
        return made

    def job(self, **fields: Any) -> Job:
        return an_embedding(**{"work_folder": self._settings.work_folder, **fields})

    def go_on(self, work: str) -> None:
        """Does nothing: the child process runs by itself."""

    def kill(self, work: str) -> None:
        self.executor._child.kill()

    def count_started(self, work: str) -> int:
        return sum(executor._child is not None and executor._work == work for executor in self._executors)

    def close(self) -> None:
        for executor in self._executors:
            executor.close()
        self.objects.close()


@pytest.fixture
def place(service_settings: Callable[[str], dict[str, Any]], tmp_path: Path) -> Iterator[OneProcess]:
    made = OneProcess(
        Settings(
            **service_settings("training"),
            datasets_address="127.0.0.1:1",
            serving_address="127.0.0.1:1",
            work_folder=str(tmp_path),
        )
    )
    yield made
    made.close()


class TestLocalProcessExecutor(ExecutorContract):
    def test_work_past_its_deadline_fails_with_its_reason(self, place: OneProcess) -> None:
        place.executor.start(WORK, place.job(deadline_seconds=1))
        place.seconds += 2
        assert "deadline of 1 s" in str(end_of(place.executor, WORK).error)

    def test_the_process_of_cancelled_work_does_the_next(self, place: OneProcess) -> None:
        place.cancel_timeout = timedelta(minutes=1)
        executor = place.another()
        executor.start(WORK, place.job())
        process = executor._child
        executor.cancel(WORK)
        assert executor.list_work() == []
        executor.start("train-next", place.job())
        assert end_of(executor, "train-next").state is State.SUCCEEDED
        assert executor._child is process

    def test_a_process_that_does_not_react_to_a_cancellation_is_killed(self, place: OneProcess) -> None:
        place.executor.start(WORK, place.job())
        process = place.executor._child
        os.kill(process.pid, signal.SIGSTOP)
        place.executor.cancel(WORK)
        assert not process.is_alive()
        assert place.executor.observe(WORK).state is State.ABSENT

    def test_a_killed_process_is_reported_as_died(self, place: OneProcess) -> None:
        place.executor.start(WORK, place.job())
        place.kill(WORK)
        error = end_of(place.executor, WORK).error
        assert isinstance(error, Unavailable)
        assert error.reason == "TRAINING_PROCESS_DIED"

    def test_work_never_gets_the_result_of_abandoned_work(self, place: OneProcess) -> None:
        place.executor.start("train-left", place.job())
        place.executor.start(WORK, place.job(recipe_yaml=None))
        error = end_of(place.executor, WORK).error
        assert getattr(error, "reason", "") == "TRAINING_CRASHED"

    def test_an_unusable_folder_is_reported_with_a_suggestion(self, place: OneProcess, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        place.executor.start(WORK, place.job(work_folder=str(tmp_path / "file")))
        error = end_of(place.executor, WORK).error
        assert getattr(error, "reason", "") == "WORK_FOLDER_UNUSABLE"


def test_the_local_process_is_an_executor(place: OneProcess) -> None:
    executor: Executor = place.executor
    assert not executor.outlives_service

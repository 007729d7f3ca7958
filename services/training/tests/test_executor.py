"""The process that learns: how it is stopped, how it dies, and what is told of that."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from training_service import refusal
from vesta_common.errors import FailedPrecondition, Internal, Unavailable
from vesta_contracts.training.v1 import TrainingProgress
from vesta_training.errors import TrainingCancelled
from vesta_training.executor import LocalProcessExecutor
from vesta_training.job import Job
from vesta_training.recipe import builtin_yaml
from vesta_training.settings import Settings


@pytest.fixture
def process(service_settings: Callable[[str], dict[str, Any]], tmp_path: Path) -> Iterator[LocalProcessExecutor]:
    settings = Settings(
        **service_settings("training"),
        datasets_address="127.0.0.1:1",
        serving_address="127.0.0.1:1",
        work_folder=str(tmp_path),
    )
    executor = LocalProcessExecutor(settings)
    yield executor
    executor.close()


def a_job(work_folder: Path) -> Job:
    return Job("run", "embedding", builtin_yaml("embedding"), (), "", "", "", "", "", "", False, 0, str(work_folder))


def a_strange_job(work_folder: Path) -> Job:
    """A job that no caller hands over."""
    return replace(a_job(work_folder), recipe_yaml=None)  # type: ignore[arg-type]


def test_a_process_that_is_killed_says_that_it_died(process: LocalProcessExecutor, tmp_path: Path) -> None:
    def pulse(news: TrainingProgress | None) -> bool:
        process._child.kill()
        return False

    refusal(Unavailable, lambda: process.execute(a_job(tmp_path), pulse), "TRAINING_PROCESS_DIED")


def test_no_job_gets_the_answer_of_one_that_was_left_alone(process: LocalProcessExecutor, tmp_path: Path) -> None:
    def pulse(news: TrainingProgress | None) -> bool:
        raise RuntimeError("the database is away")

    with pytest.raises(RuntimeError):
        process.execute(a_job(tmp_path), pulse)  # it would have ended otherwise than the next one
    refusal(Internal, lambda: process.execute(a_strange_job(tmp_path), lambda news: False), "TRAINING_CRASHED")


def test_a_process_stops_where_it_is_told_to(process: LocalProcessExecutor, tmp_path: Path) -> None:
    with pytest.raises(TrainingCancelled):
        process.execute(a_job(tmp_path), lambda news: True)


def test_what_no_one_foresaw_is_told_in_words(process: LocalProcessExecutor, tmp_path: Path) -> None:
    refusal(Internal, lambda: process.execute(a_strange_job(tmp_path), lambda news: False), "TRAINING_CRASHED")


def test_a_folder_that_cannot_be_used_is_named_with_what_would_work(
    process: LocalProcessExecutor, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    job = a_job(tmp_path / "file")
    refusal(FailedPrecondition, lambda: process.execute(job, lambda news: False), "WORK_FOLDER_UNUSABLE")

"""Fits run at the same time: their steps are added up, and the first failure stops all of them."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from threading import Barrier, Thread

import pytest
from memory_features import MemoryFeatureStore
from training_service import eventually
from vesta_training.hardware import CPU, CUDA
from vesta_training.progress import ignore_progress
from vesta_training.tasks.assignment import Dependencies
from vesta_training.tasks.views.parallel_fits import Running, parallel_fits
from vesta_training.tasks.views.turns import STEPS_PER_TURN, Turns


@pytest.fixture
def dependencies(tmp_path: Path) -> Dependencies:
    return Dependencies(
        pixels=None,  # type: ignore[arg-type]
        features=MemoryFeatureStore(),
        weights_file=lambda _: Path(),
        folder=tmp_path,
        run_folder=tmp_path,
        threads=2,
    )


def of_steps(steps: int, result: str) -> Callable[[Running], str]:
    def fit(running: Running) -> str:
        for step in range(steps):
            running.stepped(step + 1, steps, 0.5)
        return result

    return fit


def without_end(running: Running) -> None:
    for step in count(1):
        running.stepped(step, 10**9, 0.5)


def test_fits_run_at_the_same_time_and_their_steps_are_added_up(dependencies: Dependencies) -> None:
    both = Barrier(2, timeout=30)
    updates: list[tuple[int, int, float]] = []

    def together(running: Running) -> int:
        both.wait()
        return running.threads

    with parallel_fits(dependencies, lambda *update: updates.append(update)) as fits:
        first, second = fits.start(0, together), fits.start(0, together)
        assert (first.result(), second.result()) == (1, 1)
        results = [fits.start(3, of_steps(3, "a")), fits.start(2, of_steps(2, "b"))]

    assert [one.result() for one in results] == ["a", "b"]
    assert [done for done, _, _ in updates] == [1, 2, 3, 4, 5]
    assert updates[-1] == (5, 5, 0.5)


def test_fits_take_turns_on_the_cores(dependencies: Dependencies) -> None:
    begun: set[str] = set()

    def until_all_have_begun(name: str, running: Running) -> None:
        begun.add(name)
        for step in count(1):
            running.stepped(step, 10**9, 0.5)
            if len(begun) == 4:
                return

    with parallel_fits(dependencies, ignore_progress) as fits:
        results = [fits.start(10**9, partial(until_all_have_begun, name)) for name in "abcd"]
        assert [one.result(timeout=30) for one in results] == [None] * 4


def test_the_fit_with_the_most_steps_left_is_next_once_others_are_a_turn_ahead() -> None:
    turns, order = Turns(1), []

    def fit(name: str, steps: int) -> None:
        with turns.first(steps):
            for step in range(steps):
                order.append(name)
                turns.next(steps - step - 1)

    with turns.first(9):
        threads = [
            Thread(target=fit, args=(name, turns_left * STEPS_PER_TURN))
            for name, turns_left in (("a", 3), ("b", 1), ("c", 2))
        ]
        for queued, thread in enumerate(threads, start=1):
            thread.start()
            eventually(lambda queued=queued: turns.waiting_count == queued)  # type: ignore[misc]
    for thread in threads:
        thread.join(timeout=30)

    assert "".join(order) == "".join(name * STEPS_PER_TURN for name in "aaccba")


@pytest.mark.parametrize(("device", "cores", "threads"), [(CPU, 1, 1), (CPU, 2, 1), (CPU, 16, 4), (CUDA, 16, 16)])
def test_fits_share_the_cores(dependencies: Dependencies, device: str, cores: int, threads: int) -> None:
    with parallel_fits(replace(dependencies, device=device, threads=cores), ignore_progress) as fits:
        assert fits.start(1, lambda running: running.threads).result() == threads


def test_a_failure_stops_the_other_fits(dependencies: Dependencies) -> None:
    def fail(running: Running) -> None:
        running.stepped(1, 2, 0.5)
        raise ValueError("not finite")

    def run() -> None:
        with parallel_fits(dependencies, ignore_progress) as fits:
            waiting = [fits.start(10**9, without_end), fits.start(2, fail), fits.start(10**9, without_end)]
            waiting[0].result()

    with pytest.raises(ValueError, match="not finite"):
        run()


def test_a_callback_that_raises_stops_all_fits(dependencies: Dependencies) -> None:
    def stop(done: int, total: int, loss: float) -> None:
        if done == 50:
            raise InterruptedError

    def run() -> None:
        with parallel_fits(dependencies, stop) as fits:
            waiting = [fits.start(10**9, without_end) for _ in range(3)]
            waiting[2].result()

    with pytest.raises(InterruptedError):
        run()


def test_an_exception_beside_the_fits_stops_them(dependencies: Dependencies) -> None:
    def run() -> None:
        with parallel_fits(dependencies, ignore_progress) as fits:
            fits.start(10**9, without_end)
            raise KeyError

    with pytest.raises(KeyError):
        run()

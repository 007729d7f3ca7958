"""Runs the fits of a training at the same time, because a head on cached maps is too small to gain from several cores."""

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Final, TypeVar

from vesta_training.hardware import CPU
from vesta_training.progress import ignore_progress
from vesta_training.tasks.assignment import Dependencies
from vesta_training.tasks.views.turns import Turns

FITS_AT_ONCE_MAX = 4
"""A training has four fits with the default recipes: the model, and three folds."""

Result = TypeVar("Result")
Stepped = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class Running:
    """What a fit is called with.

    Attributes:
        threads: number of compute threads of the fit.
        stepped: must be called after every step with its number, the total number of steps and the loss; raises an exception to stop.
    """

    threads: int = 1
    stepped: Stepped = ignore_progress


ALONE: Final = Running()
"""A fit on one thread that nobody observes."""


class ParallelFits:
    """Starts fits, and adds up their steps. If a fit fails or is stopped, all are stopped with the same exception."""

    def __init__(self, pool: ThreadPoolExecutor, turns: Turns, threads: int, stepped: Stepped) -> None:
        self._pool, self._turns, self._threads, self._stepped = pool, turns, threads, stepped
        self._lock = Lock()
        self._failure: BaseException | None = None
        self._total, self._done = 0, 0

    def start(self, steps: int, fit: Callable[[Running], Result]) -> "Future[Result]":
        """Starts a fit, or queues it. The longest should come first. Of the first four, those with the most steps left take the next
        steps.

        Args:
            steps: number of steps of the fit.
            fit: called in a thread.
        """
        with self._lock:
            self._total += steps
        return self._pool.submit(self._run, steps, fit)

    def stop(self, failure: BaseException) -> None:
        """Stops all fits, each at its next step."""
        with self._lock:
            self._failure = self._failure or failure

    def _run(self, steps: int, fit: Callable[[Running], Result]) -> Result:
        counted = 0

        def stepped(step: int, _: int, loss: float) -> None:
            nonlocal counted
            with self._lock:
                if self._failure is not None:
                    raise self._failure
                self._done += step - counted
                counted = step
                self._stepped(self._done, self._total, loss)
            self._turns.next(steps - step)

        with self._turns.first(steps):
            try:
                return fit(Running(self._threads, stepped))
            except BaseException as failure:
                self.stop(failure)
                raise


@contextmanager
def parallel_fits(dependencies: Dependencies, stepped: Stepped) -> Generator[ParallelFits]:
    """Runs fits on all cores; on a GPU one after the other.

    Args:
        stepped: called with the number of steps of all fits, their total so far, and the loss of one fit; from any thread, one call at a
            time. Raises an exception to stop.
    """
    at_once = min(dependencies.threads, FITS_AT_ONCE_MAX) if dependencies.device == CPU else 1
    started = FITS_AT_ONCE_MAX if at_once > 1 else 1
    with ThreadPoolExecutor(started, thread_name_prefix="fit") as pool:
        fits = ParallelFits(pool, Turns(at_once), max(1, dependencies.threads // at_once), stepped)
        try:
            yield fits
        except BaseException as failure:
            fits.stop(failure)
            pool.shutdown(cancel_futures=True)
            raise

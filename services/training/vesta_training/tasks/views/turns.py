"""Turns of fits that share cores: the fit with the most steps left is next, so that all end at about the same time."""

from collections.abc import Generator
from contextlib import contextmanager
from threading import Condition
from typing import Final

STEPS_PER_TURN: Final = 10
"""A fit keeps its turn until another has so many steps more left: each change costs a thread its caches."""


class Turns:
    """So many fits take steps at the same time, and the others wait. Used from the threads of the fits.

    Without turns, the last of four fits would run on one of two cores for a fifth of the time.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[tuple[int, int]] = []
        self._arrivals = 0
        self._changed = Condition()

    @property
    def waiting_count(self) -> int:
        """The number of fits that wait."""
        with self._changed:
            return len(self._waiting)

    @contextmanager
    def first(self, steps: int) -> Generator[None]:
        """Waits for the first turn of a fit, and passes on its last turn.

        Args:
            steps: number of steps of the fit.
        """
        with self._changed:
            self._wait(steps)
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    def next(self, steps_left: int) -> None:
        """Passes the turn of a fit on if another has `STEPS_PER_TURN` more left, and waits for its next turn. Called between steps."""
        with self._changed:
            if self._waiting and -self._waiting[0][0] >= steps_left + STEPS_PER_TURN:
                self._free += 1
                self._wait(steps_left)

    def _wait(self, steps_left: int) -> None:
        self._arrivals += 1
        own = (-steps_left, self._arrivals)
        self._waiting.append(own)
        self._waiting.sort()
        self._changed.notify_all()
        self._changed.wait_for(lambda: self._free and self._waiting[0] == own)
        self._waiting.remove(own)
        self._free -= 1
        self._changed.notify_all()

"""Progress of a training: the current phase and step, and the estimated time left."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """The progress of a training.

    Attributes:
        step_count: 0 while unknown.
        time_left: estimate for the whole training, not only for the phase.
    """

    phase: str
    step: int
    step_count: int
    loss: float | None
    time_left: timedelta


def ignore_progress(*_: object) -> None:
    """A progress callback that does nothing."""


class Reporter:
    """Reports the progress of a training through its phases.

    The time left is the rest of the current phase, extrapolated from its pace, plus the planned time of the later phases.
    """

    def __init__(
        self,
        publish: Callable[[ProgressUpdate], None],
        clock: Callable[[], float],
        planned_seconds: Mapping[str, float],
    ) -> None:
        """Creates a reporter.

        Args:
            publish: called with every update.
            clock: returns seconds.
            planned_seconds: the phases of the training, in order, with their planned durations.
        """
        self._publish = publish
        self._clock = clock
        self._planned = dict(planned_seconds)
        self._phase = ""
        self._began = clock()

    def begin(self, phase: str, step_count: int = 0) -> None:
        """Starts a phase."""
        self._phase = phase
        self._began = self._clock()
        self.step(0, step_count)

    def step(self, step: int, step_count: int, loss: float | None = None) -> None:
        """Reports that `step` of `step_count` steps are done."""
        planned = self._planned.get(self._phase, 0.0)
        spent = self._clock() - self._began
        here = spent / step * (step_count - step) if step and step_count else max(0.0, planned - spent)
        names = list(self._planned)
        after = names[names.index(self._phase) + 1 :] if self._phase in names else []
        steps_left = here + sum(self._planned[name] for name in after)
        self._publish(ProgressUpdate(self._phase, step, step_count, loss, timedelta(seconds=round(steps_left, 1))))

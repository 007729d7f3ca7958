"""Reports how far a training is and how long it will still take."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """A moment of a training. `step_count` is 0 while not known; `time_left` runs until the whole training ends."""

    phase: str
    step: int
    step_count: int
    loss: float | None
    time_left: timedelta


def untold(*_: object) -> None:
    """What is told where nobody waits."""


class Reporter:
    """Follows a training through its phases.

    The time left is what is left of this phase at its own pace, and what was planned for the phases after it.
    """

    def __init__(
        self,
        tell: Callable[[ProgressUpdate], None],
        clock: Callable[[], float],
        planned_seconds: Mapping[str, float],
    ) -> None:
        """`clock` counts seconds; `planned_seconds` names the phases that this training has, in their order."""
        self._tell = tell
        self._clock = clock
        self._planned = dict(planned_seconds)
        self._phase = ""
        self._began = clock()

    def begin(self, phase: str, step_count: int = 0) -> None:
        """Enters a phase."""
        self._phase = phase
        self._began = self._clock()
        self.step(0, step_count)

    def step(self, step: int, step_count: int, loss: float | None = None) -> None:
        """Reports `step` of `step_count` done."""
        planned = self._planned.get(self._phase, 0.0)
        spent = self._clock() - self._began
        here = spent / step * (step_count - step) if step and step_count else max(0.0, planned - spent)
        names = list(self._planned)
        after = names[names.index(self._phase) + 1 :] if self._phase in names else []
        left = here + sum(self._planned[name] for name in after)
        self._tell(ProgressUpdate(self._phase, step, step_count, loss, timedelta(seconds=round(left, 1))))

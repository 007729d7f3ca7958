"""The result of a benchmark: a figure with its goal, its floor and its baseline."""

from dataclasses import dataclass, field

OUTSIDE_CORES_MAX = 0.1
"""A figure is marked if processes outside the benchmark used more than this meanwhile."""


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        lower: whether lower is better.
        floor: the value required on any machine, otherwise `make bench` fails; the goal by default.
        baseline: what the figure is compared with, as a ratio or difference; empty for absolute figures.
        details: the measurements of the figure, by names with their units.
        note: an explanation for a missed goal.
        processor_ms: milliseconds of processor time per unit of work, by program.
        outside_cores: the mean number of cores that processes outside the benchmark used meanwhile.
    """

    name: str
    value: float
    goal: float
    lower: bool
    floor: float | None = None
    baseline: str = ""
    details: dict[str, float] = field(default_factory=dict)
    note: str = ""
    processor_ms: dict[str, float] = field(default_factory=dict)
    outside_cores: float = 0.0

    @property
    def is_disturbed(self) -> bool:
        """Whether processes outside the benchmark used so much that the figure says little about the platform."""
        return self.outside_cores > OUTSIDE_CORES_MAX

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self._reaches(self.goal)

    @property
    def holds(self) -> bool:
        """Whether the floor is reached."""
        return self._reaches(self.goal if self.floor is None else self.floor)

    def _reaches(self, bound: float) -> bool:
        return self.value <= bound if self.lower else self.value >= bound

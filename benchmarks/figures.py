"""What a benchmark answers: a figure, its goal, what must hold anywhere, and what it was measured against."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        lower: whether lower is better.
        floor: what must hold on any machine, else `make bench` fails; the goal where none is given.
        baseline: what the figure is a ratio of, or a difference to; empty where it stands for itself.
        details: the measurements that it is made of, by names with their units.
        note: what was tried, for the reader who finds the goal missed.
    """

    name: str
    value: float
    goal: float
    lower: bool
    floor: float | None = None
    baseline: str = ""
    details: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self._reaches(self.goal)

    @property
    def holds(self) -> bool:
        """Whether the floor is."""
        return self._reaches(self.goal if self.floor is None else self.floor)

    def _reaches(self, bound: float) -> bool:
        return self.value <= bound if self.lower else self.value >= bound

"""What a benchmark answers: a figure, its goal, and what it was measured against."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        lower: whether lower is better.
        baseline: what the figure is a ratio of, or a difference to; empty where it stands for itself.
        details: the measurements that it is made of, by names with their units.
    """

    name: str
    value: float
    goal: float
    lower: bool
    baseline: str = ""
    details: dict[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.value <= self.goal if self.lower else self.value >= self.goal

"""The figures that the tests on a node measure: kept while they run, printed with their goals at the end."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Figure:
    """What was measured.

    Attributes:
        goal: what it is to be, in words.
        is_met: whether it is.
        causes: of what was counted, printed below it.
    """

    name: str
    measured: str
    goal: str
    is_met: bool
    causes: tuple[str, ...] = ()

    def __str__(self) -> str:
        line = f"{self.name:<68} {self.measured:>24}   goal {self.goal:<16} {'met' if self.is_met else 'MISSED'}"
        return "\n".join((line, *(f"  {count} x {cause}" for cause, count in Counter(self.causes).most_common())))


KEPT = pytest.StashKey[list[Figure]]()


@dataclass(frozen=True)
class Figures:
    """What the run prints at its end."""

    kept: list[Figure]

    def at_most(self, name: str, value: float, goal: float, unit: str) -> None:
        """Keeps a figure that is well where it is no more than its goal."""
        self.kept.append(Figure(name, f"{value:.4g} {unit}", f"≤ {goal:g} {unit}", value <= goal))

    def none_failed(self, name: str, failures: Iterable[str]) -> None:
        """Keeps the number of failed requests, whose goal is 0, with what they were answered."""
        causes = tuple(failures)
        self.kept.append(Figure(name, f"{len(causes)} requests", "≤ 0 requests", not causes, causes))

    def at_least(self, name: str, value: float, goal: float, unit: str) -> None:
        """Likewise, no less."""
        self.kept.append(Figure(name, f"{value:.4g} {unit}", f"≥ {goal:g} {unit}", value >= goal))

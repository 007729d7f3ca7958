"""What `make bench` runs: measures each figure against its baseline in one run, prints a table, writes the report."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from label_saving import default_tasks, label_saving
from rich.console import Console
from rich.table import Table
from vesta_local.platform import Platform
from vesta_local.testing import running_platform

PORT_BLOCK = 5
LABEL_SEEDS = 3
IDLE_SECONDS = 20


@dataclass(frozen=True)
class Figure:
    """One measured figure and its goal; `lower` says which way is better."""

    name: str
    value: float
    goal: float
    lower: bool

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.value <= self.goal if self.lower else self.value >= self.goal


def measure_platform() -> list[Figure]:
    """How long a second start takes, and how much memory the idle platform has."""
    with running_platform(block=PORT_BLOCK) as platform:
        time.sleep(IDLE_SECONDS)
        memory = sum(row.memory_mib for row in platform.rows())
        platform.down()
        again = Platform(platform.home)
        began = time.monotonic()
        again.up()
        seconds = time.monotonic() - began
    return [
        Figure("second_start_seconds", seconds, 15, lower=True),
        Figure("idle_memory_mib", memory, 3072, lower=True),
    ]


def measure_label_saving() -> list[Figure]:
    """Labels that random choice needs ÷ labels that the default needs, at 95 % of full accuracy, mean of three seeds."""
    found = label_saving(default_tasks(range(LABEL_SEEDS)))
    return [Figure("label_saving", found.ratio, 2.5, lower=False)]


MEASURES: dict[str, Callable[[], list[Figure]]] = {"platform": measure_platform, "label_saving": measure_label_saving}


def main() -> int:
    """Runs the measures; a goal that is missed is shown, a measure that fails is an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help=f"some of {', '.join(MEASURES)}, separated by commas")
    parser.add_argument("--home", type=Path, default=Path(".vesta"))
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name] or list(MEASURES)
    figures = [figure for name in wanted for figure in MEASURES[name]()]
    table = Table(box=None, pad_edge=False)
    for column in ("figure", "value", "goal", "met"):
        table.add_column(column)
    for figure in figures:
        sign = "≤" if figure.lower else "≥"
        table.add_row(figure.name, f"{figure.value:.2f}", f"{sign} {figure.goal:g}", "yes" if figure.met else "no")
    Console().print(table)
    folder = options.home / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    report = [{**asdict(figure), "met": figure.met} for figure in figures]
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

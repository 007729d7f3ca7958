"""What `make bench` runs: measures each figure against its baseline in one run, prints a table, writes the report."""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import frames
import ingest
import label_saving
import loop
import serving
import start
from figures import Figure
from rich.console import Console
from rich.table import Table
from vesta import Vesta
from vesta_local.testing import running_platform

PORT_BLOCK = 5
GROUPS = ("start", "ingest", "loop", "labels")

console = Console()


def main() -> int:
    """Runs the measures; a goal that is missed is shown, a measure that fails is an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help=f"some of {', '.join(GROUPS)}, separated by commas")
    parser.add_argument("--home", type=Path, default=Path(".vesta"))
    options = parser.parse_args()
    groups = [name for name in options.only.split(",") if name] or list(GROUPS)
    unknown = set(groups) - set(GROUPS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    figures = []
    for figure in _measured(groups):
        console.print(f"{figure.name} {figure.value:.2f}")
        figures.append(figure)
    _print(figures)
    folder = options.home / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    report = [{**asdict(figure), "met": figure.met} for figure in figures]
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _measured(groups: list[str]) -> Iterator[Figure]:
    """Each figure as it is found; one platform of its own serves all of them."""
    if {"start", "ingest", "loop"} & set(groups):
        with running_platform(block=PORT_BLOCK) as platform:
            if "start" in groups:
                yield from start.measure(platform)
            if "ingest" in groups:
                yield from ingest.measure(platform)
            if "loop" in groups:
                with Vesta(platform.home.address("gateway_grpc"), platform.home.owner_key) as owner:
                    turned, found = loop.turn(owner, platform)
                    yield from found
                    yield from serving.measure(owner, platform, turned.deployment)
                    yield from frames.measure(owner, platform, turned)
    if "labels" in groups:
        yield from label_saving.measure()


def _print(figures: list[Figure]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("figure", "value", "goal", "met", "of"):
        table.add_column(column)
    for figure in figures:
        sign = "≤" if figure.lower else "≥"
        met = "yes" if figure.met else "no"
        table.add_row(figure.name, f"{figure.value:.2f}", f"{sign} {figure.goal:g}", met, _made_of(figure))
    console.print(table)


def _made_of(figure: Figure) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figure.details.items())


if __name__ == "__main__":
    sys.exit(main())

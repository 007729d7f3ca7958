"""`make bench`: measures each figure and its baseline in one run, prints a table, and writes the report."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import boxes_saved
import capacity
import deployments
import detection
import frames
import ingest
import label_saving
import labelled_import
import loop
import overload
import predict_overhead
import pretrained
import replicas
import risk
import scale
import segmentation
import serving
import start
from figures import OUTSIDE_CORES_MAX, Figure
from processor_time import Outside
from rich.console import Console
from rich.table import Table
from vesta import Vesta
from vesta_local.home import BROKERS
from vesta_local.testing import running_platform

PORT_BLOCK = 5
PROCESSOR_MS_MIN = 0.05
GROUPS = (
    "ingest",
    "loop",
    "frames",
    "capacity",
    "deployments",
    "overload",
    "start",
    "replicas",
    "scale",
    "labels",
    "risk",
)
ON_ONE_PLATFORM = {
    "start",
    "ingest",
    "loop",
    "frames",
    "capacity",
    "deployments",
    "overload",
    "detection",
    "weights",
    "segmentation",
}
ON_REQUEST = ("detection", "boxes", "weights", "segmentation")
"""They take long, and run only with `--only`."""

console = Console(soft_wrap=True)


def main() -> int:
    """Runs the benchmarks. A missed goal is shown; a missed floor or a failed benchmark is an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help=f"some of {', '.join(GROUPS + ON_REQUEST)}, separated by commas")
    parser.add_argument(
        "--data",
        type=Path,
        help="a folder with boxes for detection, boxes, weights and segmentation; synthetic scenes if unset",
    )
    parser.add_argument("--weights", type=Path, help="for weights: the ONNX file of a pretrained detector")
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("VESTA_HOME", ".vesta")))
    parser.add_argument("--kafka", choices=BROKERS, default=BROKERS[0], help="the broker")
    options = parser.parse_args()
    groups = [name for name in options.only.split(",") if name] or list(GROUPS)
    unknown = set(groups) - {*GROUPS, *ON_REQUEST}
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(GROUPS + ON_REQUEST)}")
    if "weights" in groups and options.weights is None:
        parser.error("weights requires --weights FILE, the ONNX file of a pretrained detector")
    figures: list[Figure] = []
    outside = Outside()
    for measured in _measured(groups, options):
        figure = replace(measured, outside_cores=outside.cores())
        console.print(f"{figure.name} {figure.value:.2f}")
        figures.append(figure)
        record(options.home / "bench" / "report.json", figure, datetime.now(UTC))
    _print(figures)
    broken = [figure.name for figure in figures if not figure.holds]
    if broken:
        console.print(f"[red]below the floor: {', '.join(broken)}[/red]")
    return 1 if broken else 0


def record(report: Path, figure: Figure, measured: datetime) -> None:
    """Adds a figure to the report, or replaces an earlier one; figures that were not measured again stay, each with
    its time.
    """
    entries = json.loads(report.read_text()) if report.exists() else []
    verdicts = {"met": figure.met, "holds": figure.holds, "disturbed": figure.is_disturbed}
    entry = {**asdict(figure), **verdicts, "measured": measured.isoformat("T", "seconds")}
    report.parent.mkdir(parents=True, exist_ok=True)
    others = [other for other in entries if other["name"] != figure.name]
    report.write_text(json.dumps([*others, entry], indent=2) + "\n")


def _measured(groups: list[str], options: argparse.Namespace) -> Iterator[Figure]:
    """Yields each figure as it is measured, on one platform for all."""
    broker, data, weights = options.kafka, options.data, options.weights
    if ON_ONE_PLATFORM & set(groups):
        with running_platform(block=PORT_BLOCK, broker=broker) as platform:
            if "ingest" in groups:
                yield from ingest.measure(platform)
                yield from labelled_import.measure(platform)
            if {"loop", "frames", "capacity", "deployments"} & set(groups):
                with Vesta(platform.home.address("gateway_grpc"), platform.home.owner_key) as owner:
                    turned, found = loop.turn(owner, platform, loop.digits(platform))
                    if "loop" in groups:
                        yield from found
                        yield from serving.measure(owner, platform, turned.deployment)
                        yield from predict_overhead.measure(owner, platform, turned.deployment)
                    if {"loop", "frames"} & set(groups):
                        yield from frames.measure(owner, platform, turned)
                    if "capacity" in groups:
                        yield from capacity.measure(owner, platform, turned)
                    if "deployments" in groups:
                        yield from deployments.measure(owner, platform, turned)
            if {"detection", "weights", "segmentation"} & set(groups):
                with Vesta(platform.home.address("gateway_grpc"), platform.home.owner_key) as owner:
                    if "detection" in groups:
                        yield from detection.measure(owner, platform, data)
                    if "segmentation" in groups:
                        yield from segmentation.measure(owner, platform, data)
                    if "weights" in groups and weights is not None:
                        yield from pretrained.measure(owner, platform, data, weights)
            if "overload" in groups:
                with Vesta(platform.home.address("gateway_grpc"), platform.home.owner_key) as owner:
                    yield from overload.measure(owner, platform)
            if "start" in groups:  # last, so that it measures a platform in use
                yield from start.measure(platform)
    if "replicas" in groups:
        yield from replicas.measure(PORT_BLOCK)
    if "scale" in groups:
        yield from scale.measure(PORT_BLOCK)
    if "labels" in groups:
        yield from label_saving.measure()
    if "risk" in groups:
        yield from risk.measure()
    if "boxes" in groups:
        yield from boxes_saved.measure(data, options.home)


def _print(figures: list[Figure]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("figure", "value", "goal", "met", "floor", "against", "of"):
        table.add_column(column)
    for figure in figures:
        sign = "≤" if figure.lower else "≥"
        met = "yes" if figure.met else "no"
        floor = figure.goal if figure.floor is None else figure.floor
        bounds = (f"{sign} {figure.goal:g}", met, f"{sign} {floor:g}")
        name = f"{figure.name} *" if figure.is_disturbed else figure.name
        table.add_row(name, f"{figure.value:.2f}", *bounds, figure.baseline, _made_of(figure))
    console.print(table)
    if any(figure.is_disturbed for figure in figures):
        console.print(f"* Meanwhile, processes outside the benchmark used more than {OUTSIDE_CORES_MAX:g} cores.")
    for figure in figures:
        if figure.processor_ms:
            console.print(_processor_table(figure))
    for figure in figures:
        if figure.note and not figure.met:
            console.print(f"{figure.name}: {figure.note}")


def _processor_table(figure: Figure) -> Table:
    """The processor time of each program, for a figure about throughput."""
    table = Table("program", "ms", box=None, pad_edge=False, title=f"{figure.name}: processor time per unit of work")
    for name, milliseconds in figure.processor_ms.items():
        if milliseconds >= PROCESSOR_MS_MIN:
            table.add_row(name, f"{milliseconds:.2f}")
    table.add_row("all", f"{sum(figure.processor_ms.values()):.2f}")
    return table


def _made_of(figure: Figure) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figure.details.items())


if __name__ == "__main__":
    sys.exit(main())

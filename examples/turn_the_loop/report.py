"""The results of a demo: a line per round, the report and the chart."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

mpl.use("Agg")


@dataclass(frozen=True)
class RoundFigures:
    """One round. Qualities and shares are in [0, 1], and None if not measured.

    Attributes:
        labels: labelled images of the training split.
        objects: their annotations; as many as `labels` for classification.
        quality: the primary metric of the deployed model on the test split, with its 95 % interval.
        random_quality: that of a model trained on as many random labels.
        random_objects: the annotations of those random images.
        auto_share: the share of the pool that is predicted with certainty.
        auto_error: the share of these predictions that are wrong; only the simulation knows.
        seconds: the time from the last label to the deployment of the better model.
    """

    labels: int
    objects: int
    quality: float | None
    quality_low: float | None
    quality_high: float | None
    random_quality: float | None
    random_objects: int
    auto_share: float | None
    auto_error: float | None
    seconds: float


def percent(share: float | None, decimals: int = 1) -> str:
    """Formats a share; also for None."""
    return "not measured" if share is None else f"{share:.{decimals}%}"


@dataclass(frozen=True)
class Report:
    """The results of a demo.

    Attributes:
        data: the name of the photographs.
        metric: the primary metric in words.
        unit: what annotators draw; empty if they do not.
        seconds: the total duration.
        observations: the number of observed frames.
    """

    data: str
    metric: str
    unit: str
    seconds: float
    observations: int
    rounds: list[RoundFigures]


def print_rounds(console: Console, report: Report) -> None:
    """Prints a line per round."""
    table = Table(title="Round by round", title_justify="left", box=None, pad_edge=False)
    drawn = (report.unit, f"random {report.unit}") if report.unit else ()
    titles = ("round", "labels", *drawn, f"{report.metric} (95 %)", "random", "tagged alone", "wrong", "label → model")
    for column in titles:
        table.add_column(column, justify="right")
    for number, figures in enumerate(report.rounds, 1):
        counts = (str(figures.objects), str(figures.random_objects)) if report.unit else ()
        interval = "" if figures.quality is None else f" ({figures.quality_low:.1%} to {figures.quality_high:.1%})"
        table.add_row(
            str(number),
            str(figures.labels),
            *counts,
            percent(figures.quality) + interval,
            percent(figures.random_quality),
            percent(figures.auto_share),
            percent(figures.auto_error),
            f"{figures.seconds:.1f} s",
        )
    console.print(table)


def write(folder: Path, report: Report) -> None:
    """Writes `report.json` and `curve.png` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    _draw(folder / "curve.png", report)


def _draw(path: Path, report: Report) -> None:
    """Plots quality by number of labels, for the loop and for random selection."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    labels = [figures.labels for figures in report.rounds]
    qualities, random_qualities, lows, highs = (
        [math.nan if (share := getattr(figures, name)) is None else share for figures in report.rounds]
        for name in ("quality", "random_quality", "quality_low", "quality_high")
    )
    axes.plot(labels, qualities, marker="o", label="Vesta's choice")
    axes.fill_between(labels, lows, highs, alpha=0.15)
    axes.plot(labels, random_qualities, marker="s", linestyle="--", label="random choice")
    axes.set_xlabel("images labelled by annotators" if report.unit else "labels by annotators")
    axes.set_ylabel(f"{report.metric} on the held-out test split")
    axes.set_title(f"{report.data}: {report.metric} by number of labels")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)

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
    """One round. Accuracies and shares are in [0, 1], and None if not measured; `seconds` is the time from the last
    label to the deployment of the better model.
    """

    labels: int
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    random_accuracy: float | None
    auto_share: float | None
    seconds: float


def percent(share: float | None, decimals: int = 1) -> str:
    """Formats a share; also for None."""
    return "not measured" if share is None else f"{share:.{decimals}%}"


def print_rounds(console: Console, rounds: list[RoundFigures]) -> None:
    """Prints a line per round."""
    table = Table(title="Round by round", title_justify="left", box=None, pad_edge=False)
    for column in ("round", "labels", "accuracy (95 %)", "random", "tagged alone", "label → model"):
        table.add_column(column, justify="right")
    for number, figures in enumerate(rounds, 1):
        table.add_row(
            str(number),
            str(figures.labels),
            percent(figures.accuracy)
            + ("" if figures.accuracy is None else f" ({figures.accuracy_low:.1%} to {figures.accuracy_high:.1%})"),
            percent(figures.random_accuracy),
            percent(figures.auto_share),
            f"{figures.seconds:.1f} s",
        )
    console.print(table)


@dataclass(frozen=True)
class Report:
    """The results of a demo.

    Attributes:
        data: the name of the photographs.
        seconds: the total duration.
        observations: the number of observed frames.
    """

    data: str
    seconds: float
    observations: int
    rounds: list[RoundFigures]


def write(folder: Path, report: Report) -> None:
    """Writes `report.json` and `curve.png` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    _draw(folder / "curve.png", report.data, report.rounds)


def _draw(path: Path, data: str, rounds: list[RoundFigures]) -> None:
    """Plots accuracy by number of labels, for the loop and for random selection."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    labels = [figures.labels for figures in rounds]
    accuracies, random_accuracies, lows, highs = (
        [math.nan if (share := getattr(figures, name)) is None else share for figures in rounds]
        for name in ("accuracy", "random_accuracy", "accuracy_low", "accuracy_high")
    )
    axes.plot(labels, accuracies, marker="o", label="Vesta's choice")
    axes.fill_between(labels, lows, highs, alpha=0.15)
    axes.plot(labels, random_accuracies, marker="s", linestyle="--", label="random choice")
    axes.set_xlabel("labels by annotators")
    axes.set_ylabel("accuracy on the held-out test split")
    axes.set_title(f"{data}: accuracy by number of labels")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)

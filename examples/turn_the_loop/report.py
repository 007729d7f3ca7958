"""The figures of a demo: a line a round, the report and the chart."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

mpl.use("Agg")


@dataclass(frozen=True)
class RoundFigures:
    """One round. Accuracies and shares are in [0, 1]; `seconds` run from the last label to the better model answering."""

    labels: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    random_accuracy: float
    auto_share: float
    seconds: float


def print_rounds(console: Console, rounds: list[RoundFigures]) -> None:
    """Prints a line a round."""
    table = Table(title="Round by round", title_justify="left", box=None, pad_edge=False)
    for column in ("round", "labels", "accuracy (95 %)", "random", "tagged alone", "label → model"):
        table.add_column(column, justify="right")
    for number, figures in enumerate(rounds, 1):
        table.add_row(
            str(number),
            str(figures.labels),
            f"{figures.accuracy:.1%} ({figures.accuracy_low:.1%} to {figures.accuracy_high:.1%})",
            f"{figures.random_accuracy:.1%}",
            f"{figures.auto_share:.1%}",
            f"{figures.seconds:.1f} s",
        )
    console.print(table)


@dataclass(frozen=True)
class Report:
    """What a demo has shown.

    Attributes:
        data: the name of the photographs.
        seconds: from start to end.
        observations: how many frames of the cameras were observed.
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
    """Accuracy against labels, for the loop and for random labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    labels = [figures.labels for figures in rounds]
    axes.plot(labels, [figures.accuracy for figures in rounds], marker="o", label="Vesta's choice")
    axes.fill_between(
        labels, [figures.accuracy_low for figures in rounds], [figures.accuracy_high for figures in rounds], alpha=0.15
    )
    axes.plot(
        labels, [figures.random_accuracy for figures in rounds], marker="s", linestyle="--", label="random choice"
    )
    axes.set_xlabel("labels given by experts")
    axes.set_ylabel("accuracy on the held-out test side")
    axes.set_title(f"{data}: how the model got better")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)

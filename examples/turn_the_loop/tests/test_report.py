"""What the demo prints and draws, also of a round in which nothing was measured."""

import json
from pathlib import Path

import pytest
from report import Report, RoundFigures, print_rounds, write
from rich.console import Console

MEASURED = RoundFigures(60, 0.8, 0.7, 0.9, 0.75, 0.5, 12.0)
UNMEASURED = RoundFigures(30, None, None, None, None, None, 3.0)


def test_what_was_not_measured_is_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_rounds(Console(width=120), [UNMEASURED, MEASURED])
    _, _, unmeasured, measured = capsys.readouterr().out.splitlines()
    assert unmeasured.split() == ["1", "30", *3 * ["not", "measured"], "3.0", "s"]
    assert "80.0% (70.0% to 90.0%)" in measured


def test_the_report_and_the_chart_have_no_figure_of_it(tmp_path: Path) -> None:
    write(tmp_path, Report("digits", 1.0, 0, [UNMEASURED, MEASURED]))
    found = json.loads((tmp_path / "report.json").read_text())["rounds"][0]
    assert (found["accuracy"], found["random_accuracy"], found["auto_share"]) == (None, None, None)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")

"""What the demo prints and draws, also of a round in which nothing was measured."""

import json
from pathlib import Path

import pytest
from report import Report, RoundFigures, print_rounds, write
from rich.console import Console

MEASURED = RoundFigures(60, 250, 0.8, 0.7, 0.9, 0.75, 230, 0.5, 0.02, 12.0)
UNMEASURED = RoundFigures(30, 120, None, None, None, None, 110, None, None, 3.0)


def a_report(unit: str = "") -> Report:
    return Report("digits", "mAP@50" if unit else "accuracy", unit, 1.0, 0, [UNMEASURED, MEASURED])


def test_what_was_not_measured_is_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_rounds(Console(width=140), a_report())
    _, titles, unmeasured, measured = capsys.readouterr().out.splitlines()
    assert "accuracy (95 %)" in titles
    assert unmeasured.split() == ["1", "30", *4 * ["not", "measured"], "3.0", "s"]
    assert "80.0% (70.0% to 90.0%)" in measured
    assert "2.0%" in measured


def test_boxes_are_counted_beside_images(capsys: pytest.CaptureFixture[str]) -> None:
    print_rounds(Console(width=140), a_report("boxes"))
    _, titles, _, measured = capsys.readouterr().out.splitlines()
    assert "mAP@50 (95 %)" in titles
    assert measured.split()[:4] == ["2", "60", "250", "230"]


def test_the_report_and_the_chart_have_no_figure_of_it(tmp_path: Path) -> None:
    write(tmp_path, a_report())
    found = json.loads((tmp_path / "report.json").read_text())["rounds"][0]
    assert (found["quality"], found["random_quality"], found["auto_share"], found["auto_error"]) == 4 * (None,)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")

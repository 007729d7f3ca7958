"""What `make bench` says of a figure, and what it keeps."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from figures import Figure
from run import record

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "lower", "floor", "met", "holds"),
    [
        (9.0, True, None, True, True),
        (11.0, True, None, False, False),
        (11.0, True, 12.0, False, True),
        (13.0, True, 12.0, False, False),
        (11.0, False, None, True, True),
        (9.0, False, 8.0, False, True),
        (7.0, False, 8.0, False, False),
    ],
)
def test_a_figure_may_miss_its_goal_and_still_hold(
    value: float, lower: bool, floor: float | None, met: bool, holds: bool
) -> None:
    figure = Figure("speed", value, 10.0, lower, floor)
    assert (figure.met, figure.holds) == (met, holds)


def test_a_figure_that_is_measured_again_takes_its_own_place_alone(tmp_path: Path) -> None:
    report = tmp_path / "bench" / "report.json"
    for name, value, hours in (("speed", 1.0, 0), ("memory", 2.0, 0), ("speed", 3.0, 1)):
        record(report, Figure(name, value, 10.0, lower=True), NOON + timedelta(hours=hours))
    entries = {entry["name"]: entry for entry in json.loads(report.read_text())}
    assert {name: entry["value"] for name, entry in entries.items()} == {"memory": 2.0, "speed": 3.0}
    assert entries["memory"]["measured"] < entries["speed"]["measured"]

"""The probe of overload: what it makes of the answers' times."""

import overload
import pytest


@pytest.mark.parametrize(
    ("values", "percent", "wanted"),
    [([], 99, 0.0), ([0.5], 99, 0.5), ([float(number) for number in range(101)], 99, 99.0), ([1.0, 3.0], 50, 2.0)],
)
def test_percentiles(values: list[float], percent: int, wanted: float) -> None:
    assert overload.percentile(values, percent) == pytest.approx(wanted)


def test_answers_a_second_are_of_the_whole_time_until_the_last_answer() -> None:
    outcome = overload.Outcome(seconds=[0.1] * 30, refused_seconds=[0.01] * 5, duration_seconds=2.0)
    figures = outcome.figures()
    assert (figures["answered_per_second"], figures["refused"], figures["failed"]) == (15.0, 5.0, 0.0)

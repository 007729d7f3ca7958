"""The backoff of a deployment's work."""

from datetime import timedelta

import pytest
from vesta_serving.backoff import PENALTY_FIRST, PENALTY_MAX, penalty


def test_a_penalty_doubles_up_to_its_limit() -> None:
    assert [penalty(failures) for failures in (1, 2, 3, 100)] == [
        PENALTY_FIRST,
        2 * PENALTY_FIRST,
        4 * PENALTY_FIRST,
        PENALTY_MAX,
    ]


@pytest.mark.parametrize(("seconds", "waited"), [(0.5, PENALTY_FIRST), (20.0, timedelta(seconds=20))])
def test_a_penalty_is_no_shorter_than_the_attempt(seconds: float, waited: timedelta) -> None:
    assert penalty(1, timedelta(seconds=seconds)) == waited

"""The backoff of a deployment's work."""

from datetime import timedelta

import pytest
from vesta_serving.backoff import BACKOFF_FIRST, BACKOFF_MAX, backoff_delay


def test_the_backoff_doubles_up_to_its_limit() -> None:
    assert [backoff_delay(failures) for failures in (1, 2, 3, 100)] == [
        BACKOFF_FIRST,
        2 * BACKOFF_FIRST,
        4 * BACKOFF_FIRST,
        BACKOFF_MAX,
    ]


@pytest.mark.parametrize(("seconds", "waited"), [(0.5, BACKOFF_FIRST), (20.0, timedelta(seconds=20))])
def test_the_backoff_is_at_least_as_long_as_the_attempt(seconds: float, waited: timedelta) -> None:
    assert backoff_delay(1, timedelta(seconds=seconds)) == waited

"""When a record is tried again, when it is given up, and when so much is given up that the consumer stops."""

from datetime import timedelta

import pytest
from vesta_common.clock import ManualClock
from vesta_common.errors import InvalidArgument, Unavailable
from vesta_common.events.consumer.retries import (
    ATTEMPTS_MAX,
    BACKOFF_MAX,
    DEAD_LETTERS_WINDOW,
    Attempts,
    CircuitBreaker,
    TooManyDeadLetters,
)


def rests(*errors: Exception) -> list[float | None]:
    attempts = Attempts()
    found = [attempts.fail(error) for error in errors]
    assert attempts.count == len(errors)
    return [None if rest is None else rest.total_seconds() for rest in found]


def test_what_may_work_later_is_tried_for_ever_less_and_less_often() -> None:
    found = rests(*[Unavailable("away")] * 1000)
    assert found[:6] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert set(found[6:]) == {BACKOFF_MAX.total_seconds()}


@pytest.mark.parametrize("error", [InvalidArgument("no"), KeyError("our mistake")])
def test_what_will_not_work_is_given_up_at_the_third_attempt(error: Exception) -> None:
    assert ATTEMPTS_MAX == 3
    assert rests(error, error, error) == [0.2, 0.4, None]


def test_an_outage_between_does_not_count() -> None:
    wrong, away = KeyError("our mistake"), Unavailable("away")
    assert rests(wrong, away, away, wrong, away, wrong) == [0.2, 0.4, 0.8, 1.6, 3.2, None]


def blow(circuit_breaker: CircuitBreaker, clock: ManualClock, times: int, every: timedelta) -> int:
    """How many are counted before it blows; `times` where it does not."""
    for number in range(times):
        try:
            circuit_breaker.count("KeyError")
        except TooManyDeadLetters:
            return number
        clock.advance(every)
    return times


@pytest.mark.parametrize(
    ("every", "counted"),
    [
        (timedelta(0), 3),
        (DEAD_LETTERS_WINDOW / 3 - timedelta(milliseconds=1), 3),
        (DEAD_LETTERS_WINDOW / 3, 50),
        (timedelta(hours=1), 50),
    ],
)
def test_the_fuse_blows_at_the_last_one_allowed_within_the_window(every: timedelta, counted: int) -> None:
    clock = ManualClock()
    assert blow(CircuitBreaker(clock, dead_letters_max=4), clock, 50, every) == counted


def test_the_fuse_says_how_many_and_why() -> None:
    circuit_breaker = CircuitBreaker(ManualClock(), dead_letters_max=1)
    with pytest.raises(TooManyDeadLetters, match="1 events could not be handled; the last error: KeyError"):
        circuit_breaker.count("KeyError")

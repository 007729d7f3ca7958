"""When a broker that has records and gives none is given longer, and when it is not."""

from datetime import timedelta

import pytest
from vesta_common.clock import ManualClock
from vesta_common.events.consumer.fetch_wait import MS_MAX, FetchWait, Starved

TICK = timedelta(milliseconds=100)


def starves(wait: FetchWait, clock: ManualClock, seconds: float, *, is_behind: bool = True) -> bool:
    """Whether polls that bring nothing for so long tell that more time is needed."""
    for _ in range(int(seconds / TICK.total_seconds())):
        try:
            wait.record_poll(True, lambda: is_behind)
        except Starved:
            return True
        clock.advance(TICK)
    return False


def test_twice_the_time_each_time_up_to_the_longest() -> None:
    clock = ManualClock()
    wait = FetchWait(100, clock)
    found = []
    while starves(wait, clock, seconds=30):
        found.append(wait.ms)
    assert found == [200, 400, 800, 1600, 3200, MS_MAX]


def test_two_fetches_and_a_second_are_waited_for() -> None:
    clock = ManualClock()
    assert not starves(FetchWait(100, clock), clock, seconds=1.2)
    assert not starves(FetchWait(2000, clock), clock, seconds=5)
    assert starves(FetchWait(2000, clock), clock, seconds=5.2)


def test_a_quiet_topic_needs_no_more_time() -> None:
    clock = ManualClock()
    wait = FetchWait(100, clock)
    assert not starves(wait, clock, seconds=60, is_behind=False)
    assert wait.ms == 100


def test_what_comes_begins_the_count_anew() -> None:
    clock = ManualClock()
    wait = FetchWait(100, clock)
    for _ in range(5):
        assert not starves(wait, clock, seconds=1)
        wait.record_poll(False, lambda: pytest.fail("nobody asks where something came"))


def test_a_broker_that_was_away_is_given_the_first_time_again() -> None:
    clock = ManualClock()
    wait = FetchWait(100, clock)
    assert starves(wait, clock, seconds=2)
    wait.reset()
    assert wait.ms == 100


def test_a_clock_that_is_set_back_begins_the_count_anew() -> None:
    clock = ManualClock()
    wait = FetchWait(100, clock)
    assert not starves(wait, clock, seconds=1)
    clock.advance(-timedelta(hours=1))
    assert not starves(wait, clock, seconds=1)
    assert starves(wait, clock, seconds=2)

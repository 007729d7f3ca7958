"""Admission by estimated waiting time: what would wait too long is refused at once, and the estimate follows what is measured."""

from contextlib import ExitStack
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from vesta_common.errors import DeadlineExceeded, ResourceExhausted
from vesta_common.rpc.admission import RETRY_AFTER_MAX, RETRY_AFTER_MIN, Admission, AdmissionMetrics


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def watch() -> Watch:
    return Watch()


def a_queue(watch: Watch, wait_seconds: float = 1.0, parallel: int = 2, units_max: int = 1000) -> Admission:
    return Admission("work", timedelta(seconds=wait_seconds), parallel, units_max, watch)


def served(queue: Admission, watch: Watch, seconds: float, times: int = 40) -> None:
    """The queue serves units, each after the other, in so many seconds each."""
    for _ in range(times):
        with queue.admitted():
            watch.seconds += seconds


def test_what_would_wait_longer_than_the_bound_is_refused_with_the_time_to_come_again(watch: Watch) -> None:
    queue = a_queue(watch, wait_seconds=1.0, parallel=2)
    served(queue, watch, seconds=0.1)
    with ExitStack() as held:
        for _ in range(11):  # the eleventh waits for nine, 0.9 s, and one more is at the bound
            held.enter_context(queue.admitted())
        assert queue.wait_seconds == pytest.approx(1.0)
        held.enter_context(queue.admitted())

        with pytest.raises(ResourceExhausted) as refused, queue.admitted():
            pass

        assert refused.value.reason == "OVERLOADED"
        assert refused.value.metadata == {"queue": "work"}
        assert refused.value.retry_after is not None
        assert refused.value.retry_after.total_seconds() == pytest.approx(1.1)
        assert queue.pending == 12
    assert queue.pending == 0


def test_an_idle_queue_admits_work_of_any_size_however_slow_it_was(watch: Watch) -> None:
    queue = a_queue(watch)
    served(queue, watch, seconds=60)
    with queue.admitted(units=500):
        assert queue.pending == 500


def test_so_many_as_are_served_at_once_are_always_admitted(watch: Watch) -> None:
    queue = a_queue(watch, parallel=2)
    served(queue, watch, seconds=60)
    with queue.admitted(), queue.admitted(), pytest.raises(ResourceExhausted), queue.admitted():
        pass


def test_nothing_is_refused_before_anything_was_measured(watch: Watch) -> None:
    queue = a_queue(watch, parallel=1)
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(queue.admitted())


def test_more_units_than_the_queue_may_hold_are_refused_whatever_the_estimate(watch: Watch) -> None:
    queue = a_queue(watch, units_max=10)
    with queue.admitted(6), pytest.raises(ResourceExhausted) as refused, queue.admitted(5):
        pass
    assert refused.value.retry_after == RETRY_AFTER_MIN
    with queue.admitted(10):
        pass


def test_the_estimate_follows_when_work_becomes_faster_or_slower(watch: Watch) -> None:
    queue = a_queue(watch, parallel=1)
    for seconds in (1.0, 0.01, 0.5):
        served(queue, watch, seconds, times=300)
        with queue.admitted():
            assert queue.wait_seconds == pytest.approx(seconds, rel=0.05)


def test_idle_time_is_no_work(watch: Watch) -> None:
    queue = a_queue(watch, parallel=1)
    for _ in range(50):
        served(queue, watch, seconds=0.1, times=1)
        watch.seconds += 1000
    with queue.admitted():
        assert queue.wait_seconds == pytest.approx(0.1)


def test_work_in_parallel_counts_by_how_fast_all_of_it_is_done(watch: Watch) -> None:
    queue = a_queue(watch, parallel=1)
    for _ in range(40):  # ten at once take a second together
        with ExitStack() as held:
            for _ in range(10):
                held.enter_context(queue.admitted())
            watch.seconds += 1.0
    with queue.admitted():
        assert queue.wait_seconds == pytest.approx(0.1, rel=0.3)


def test_a_caller_that_waits_no_more_is_not_served_and_one_in_a_hurry_is_refused_earlier(watch: Watch) -> None:
    queue = a_queue(watch, wait_seconds=1.0, parallel=1)
    served(queue, watch, seconds=0.1)
    with pytest.raises(DeadlineExceeded) as passed, queue.admitted(remaining_seconds=0.0):
        pass
    assert passed.value.reason == "DEADLINE_PASSED"
    with queue.admitted(units=3):
        with pytest.raises(ResourceExhausted), queue.admitted(remaining_seconds=0.2):
            pass
        with queue.admitted(remaining_seconds=0.5):
            pass


def test_a_place_is_given_back_when_the_work_fails(watch: Watch) -> None:
    queue = a_queue(watch)
    with pytest.raises(KeyError), queue.admitted(3):
        raise KeyError
    assert queue.pending == 0


def test_outcomes_and_waits_are_counted(watch: Watch) -> None:
    registry = CollectorRegistry()
    metrics = AdmissionMetrics("sample", registry)
    queue = Admission("work", timedelta(seconds=1), 1, 1, watch, metrics)
    metrics.observe("work", 0.3)
    with queue.admitted(), pytest.raises(ResourceExhausted), queue.admitted():
        pass
    with pytest.raises(DeadlineExceeded), queue.admitted(remaining_seconds=-1):
        pass

    def count(outcome: str) -> float | None:
        return registry.get_sample_value("vesta_sample_admission_total", {"queue": "work", "outcome": outcome})

    assert [count(outcome) for outcome in ("accepted", "overloaded", "expired")] == [1, 1, 1]
    assert registry.get_sample_value("vesta_sample_queue_seconds_sum", {"queue": "work"}) == 0.3


@given(service_seconds=st.floats(0.005, 0.2), overload=st.floats(1.1, 5.0), wait_seconds=st.floats(1.0, 3.0))
def test_under_overload_what_is_admitted_waits_no_longer_than_the_bound_and_the_server_stays_busy(
    service_seconds: float, overload: float, wait_seconds: float
) -> None:
    """One server, arrivals faster than it serves: a simulation in which the clock is moved from event to event."""
    watch = Watch()
    queue = a_queue(watch, wait_seconds, parallel=1)
    free_at, waits, pauses, done, ends = watch.seconds, [], [], 0, []
    begin = watch.seconds
    for number in range(600):
        arrival = begin + number * service_seconds / overload
        for end in [end for end in ends if end <= arrival]:
            watch.seconds = end
            queue.leave()
            ends.remove(end)
            done += 1
        watch.seconds = arrival
        try:
            queue.check()
        except ResourceExhausted as refused:
            pauses.append(refused.retry_after)
            continue
        queue.enter()
        waits.append(max(0.0, free_at - arrival))
        free_at = max(free_at, arrival) + service_seconds
        ends.append(free_at)
    elapsed = watch.seconds - begin
    assert all(pause is not None and RETRY_AFTER_MIN <= pause <= RETRY_AFTER_MAX for pause in pauses)
    assert max(waits) <= wait_seconds * 1.05 + 2 * service_seconds
    assert done >= 0.9 * elapsed / service_seconds - wait_seconds / service_seconds - 2

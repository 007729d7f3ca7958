"""Limits: rates, slots and bytes, each refused at once and with a time to come again."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_common.errors import ResourceExhausted
from vesta_gateway.access.limits import BUCKETS_MAX, Slots, TokenBuckets


class Watch:
    """A stopwatch that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_burst_is_accepted_and_then_the_rate():
    watch = Watch()
    buckets = TokenBuckets("requests", per_second=8, burst=3, monotonic=watch)
    for _ in range(3):
        buckets.take("a")

    with pytest.raises(ResourceExhausted) as caught:
        buckets.take("a")

    assert caught.value.retry_after == timedelta(seconds=0.125)
    buckets.take("b")
    watch.seconds += 0.125
    buckets.take("a")
    with pytest.raises(ResourceExhausted):
        buckets.take("a")


@given(st.lists(st.floats(0, 2), max_size=200))
def test_burst_and_rate_are_never_exceeded(pauses):
    watch = Watch()
    buckets = TokenBuckets("requests", per_second=5, burst=4, monotonic=watch)
    passed = 0
    for pause in pauses:
        watch.seconds += pause
        try:
            buckets.take("a")
        except ResourceExhausted:
            continue
        passed += 1

    assert passed <= 4 + 5 * sum(pauses) + 1e-6


def test_many_keys_use_bounded_memory():
    buckets = TokenBuckets("requests", per_second=1, burst=1, monotonic=Watch())
    for number in range(BUCKETS_MAX + 10):
        buckets.take(str(number))

    assert len(buckets._buckets) == BUCKETS_MAX


def test_slots_are_always_released():
    slots = Slots("calls", total_max=3, per_key_max=2)
    with slots.hold("a"), slots.hold("a"):
        with pytest.raises(ResourceExhausted, match="more than 2 calls"), slots.hold("a"):
            pass
        with slots.hold("b"), pytest.raises(ResourceExhausted, match="more than 3 calls"), slots.hold("c"):
            pass
    with pytest.raises(KeyError), slots.hold("a"):
        raise KeyError

    assert slots.total == 0
    assert not slots._held

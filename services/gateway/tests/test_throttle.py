"""Throttling of overloaded RPCs: in proportion to what the service refuses, and no longer than it does."""

import random
from datetime import timedelta

import pytest
from vesta_common.errors import ResourceExhausted
from vesta_gateway.access.throttle import MULTIPLIER, REQUESTS_MIN, RETRY_AFTER, Throttle

RPC = "vesta.serving.v1.DeploymentService.Predict"


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def sent(throttle: Throttle, watch: Watch, per_second: float, accepted_per_second: float, seconds: float) -> float:
    """Requests at a rate to a service that takes some of them; answers how many a second the service is asked."""
    asked = room = 0.0
    for _ in range(int(per_second * seconds)):
        watch.seconds += 1 / per_second
        room = min(room + accepted_per_second / per_second, 2.0)
        try:
            throttle.check(RPC)
        except ResourceExhausted:
            continue
        asked += 1
        if room >= 1:
            room -= 1
        else:
            throttle.record_rejection(RPC, timedelta(seconds=3))
    return asked / seconds


def refused_by(throttle: Throttle, pause: timedelta | None) -> None:
    """The service refuses every request, until one does not come to it."""
    while True:
        throttle.check(RPC)
        throttle.record_rejection(RPC, pause)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def throttle(watch: Watch) -> Throttle:
    return Throttle(watch, random.Random(1).random)


def test_a_service_that_accepts_everything_gets_all_requests(throttle: Throttle, watch: Watch) -> None:
    assert sent(throttle, watch, per_second=200, accepted_per_second=400, seconds=10) == pytest.approx(200)


def test_an_overloaded_service_gets_slightly_more_requests_than_it_accepts(throttle: Throttle, watch: Watch) -> None:
    sent(throttle, watch, per_second=400, accepted_per_second=100, seconds=10)
    asked = sent(throttle, watch, per_second=400, accepted_per_second=100, seconds=10)

    assert 100 < asked < 100 * MULTIPLIER * 1.15


def test_early_rejections_have_the_retry_delay_of_the_service(throttle: Throttle, watch: Watch) -> None:
    with pytest.raises(ResourceExhausted) as refused:
        refused_by(throttle, timedelta(seconds=3))
    assert (refused.value.reason, refused.value.retry_after) == ("OVERLOADED", timedelta(seconds=3))


def test_a_rejection_without_a_retry_delay_gets_the_default(watch: Watch) -> None:
    throttle = Throttle(watch, lambda: 0.0)
    with pytest.raises(ResourceExhausted) as refused:
        refused_by(throttle, None)
    assert refused.value.retry_after == RETRY_AFTER


def test_after_an_overload_all_requests_are_forwarded_again(throttle: Throttle, watch: Watch) -> None:
    sent(throttle, watch, per_second=400, accepted_per_second=50, seconds=10)
    watch.seconds += 10

    assert sent(throttle, watch, per_second=50, accepted_per_second=100, seconds=5) == pytest.approx(50)


def test_few_rejections_do_not_throttle(watch: Watch) -> None:
    throttle = Throttle(watch, lambda: 0.0)
    for _ in range(REQUESTS_MIN):
        throttle.check(RPC)
        throttle.record_rejection(RPC, None)


def test_other_rpcs_are_not_throttled(watch: Watch) -> None:
    throttle = Throttle(watch, lambda: 0.0)
    for _ in range(REQUESTS_MIN):
        throttle.check(RPC)
        throttle.record_rejection(RPC, None)

    throttle.check("vesta.datasets.v1.DatasetService.ListDatasets")
    with pytest.raises(ResourceExhausted):
        throttle.check(RPC)

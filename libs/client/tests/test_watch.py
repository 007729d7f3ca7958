"""A watcher goes on after the last event when its gateway is replaced, tells none twice, and gives up where it should."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from vesta.errors import ApiError
from vesta.overload import Patience
from vesta.watching import watch
from vesta_contracts.gateway.v1 import ProjectEvent, WatchEventsRequest

REQUEST = WatchEventsRequest(parent="projects/acme")


class Gateway:
    """Tells these events in these streams, each of which breaks off with an error."""

    def __init__(self, *streams: list[str], code: str = "UNAVAILABLE") -> None:
        self._streams = iter(streams)
        self._code = code
        self.asked: list[str] = []

    def watch_events(self, request: WatchEventsRequest) -> Iterator[ProjectEvent]:
        self.asked.append(request.after_event_id)
        for event_id in next(self._streams, []):
            yield ProjectEvent(id=event_id)
        raise ApiError(code=self._code, reason="STOPPING", message="the gateway stops")


def patience() -> Patience:
    """Of two pauses of half a second each, which take no time."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return Patience(timedelta(seconds=1.1), lambda: now[0], sleep)


def read(gateway: Gateway) -> list[str]:
    found: list[str] = []
    with pytest.raises(ApiError):
        found.extend(event.id for event in watch(gateway.watch_events, REQUEST, patience))
    return found


def test_a_stream_that_breaks_off_goes_on_after_its_last_event_and_tells_none_twice() -> None:
    gateway = Gateway(["a", "b"], ["b", "c"], ["d"])
    assert read(gateway) == ["a", "b", "c", "d"]
    assert gateway.asked == ["", "b", "c", "d", "d"]  # and gives up


@pytest.mark.parametrize("gateway", [Gateway([]), Gateway(["a"], code="PERMISSION_DENIED")])
def test_what_does_not_pass_by_itself_is_raised_at_once(gateway: Gateway) -> None:
    read(gateway)
    assert len(gateway.asked) == 1

"""Frames that are not observed keep nobody from what others showed."""

from types import SimpleNamespace
from typing import Any

from cameras import observed
from vesta_contracts.pipelining.v1 import GetStreamRequest, ListObservationsRequest, Observation, Stream


def an_owner(stream: Stream, seen: list[Observation]) -> Any:
    """Somebody whose one stream is so, and in whose frames this was seen."""

    def get(request: GetStreamRequest) -> Stream:
        assert request.name == stream.name
        return stream

    def pages(_: object, request: ListObservationsRequest) -> list[Observation]:
        assert request.parent == stream.name
        return seen

    return SimpleNamespace(
        streams=SimpleNamespace(GetStream=get), observations=SimpleNamespace(ListObservations=None), pages=pages
    )


def test_a_dropped_and_a_refused_frame_are_not_waited_for() -> None:
    seen = [Observation(name="door/1")]
    owner = an_owner(Stream(name="door", observed_count=1, dropped_count=1, refused_count=1), seen)
    assert observed(owner, ["door"], 3) == seen

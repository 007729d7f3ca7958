"""Frames that are not observed keep nobody from what others showed."""

import socket
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cameras import observed, open_producer, send
from kafka.errors import KafkaError
from vesta_contracts.pipelining.v1 import GetStreamRequest, ListObservationsRequest, Observation, Stream
from vesta_local.engines import embedded_kafka
from vesta_local.ports import is_free


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
    owner = an_owner(Stream(name="door", observed_count=1, dropped_count=1, rejected_count=1), seen)
    assert observed(owner, ["door"], 3) == seen


def test_a_broker_that_names_itself_by_an_address_unknown_here_is_reported_in_time(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [str(embedded_kafka.BINARY), "broker", "--cluster-id", "test", "--storage-engine", "memory://test/"]
    command += ["--listener-url", f"tcp://{address}", "--advertised-listener-url", "tcp://kafka.invalid:9092"]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as broker:
        try:
            deadline = time.monotonic() + 60
            while is_free(int(address.partition(":")[2])):
                assert broker.poll() is None
                assert time.monotonic() < deadline
            with (
                closing(open_producer(address, seconds_max=3)) as producer,
                pytest.raises(KafkaError, match="advertised"),
            ):
                send(producer, address, "projects/a/pipelines/b/streams/c", b"frame", datetime.now(UTC), seconds_max=3)
        finally:
            broker.kill()

"""Streaming RPCs get the same care as others; a busy server refuses rather than queues, and still says it is well."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from vesta_common import trace
from vesta_common.errors import InvalidArgument, NotFound, ResourceExhausted
from vesta_common.rpc.client import open_channel
from vesta_common.rpc.server import Server
from vesta_contracts.connection.v1 import (
    SourceServiceServicer,
    SourceServiceStub,
    UploadItemRequest,
    UploadItemResponse,
)
from vesta_contracts.datasets.v1 import (
    DownloadItemRequest,
    GetItemRequest,
    Item,
    ItemServiceServicer,
    ItemServiceStub,
)
from vesta_local.testing import identity_of

PATIENCE_SECONDS = 20.0


def token() -> list[tuple[str, str]]:
    """The metadata of a call by the gateway."""
    return [identity_of("gateway").metadata("datasets")]


ITEMS = "projects/acme/datasets/vans/items"
DOWNLOAD = "/vesta.datasets.v1.ItemService/DownloadItem"


class Items(ItemServiceServicer):
    """Answers as its name asks; `held` is how many calls wait for `release`, `asked` what was begun."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.held = threading.Semaphore(0)
        self.asked: list[str] = []

    def GetItem(self, request, context):
        self.asked.append(request.name)
        self.held.release()
        self.release.wait(PATIENCE_SECONDS)
        return Item(name=request.name)

    def DownloadItem(self, request, context):
        yield HttpBody(data=trace.caller().encode())
        if request.name.endswith("gone"):
            raise NotFound("it is gone", reason="GONE")
        while request.name.endswith("endless"):
            yield HttpBody(data=b"more")


class Sources(SourceServiceServicer):
    """Reads what it is sent."""

    def UploadItem(self, requests, context):
        size_bytes = sum(len(request.file.data) for request in requests)
        return UploadItemResponse(item=f"{ITEMS}/of-{size_bytes}-bytes")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def items() -> Iterator[Items]:
    found = Items()
    yield found
    found.release.set()


@pytest.fixture
def server(items: Items, registry: CollectorRegistry) -> Iterator[Server]:
    found = Server(identity_of("sample"), "127.0.0.1:0", [items, Sources()], registry, rpcs_max=2)
    found.start()
    found.set_healthy(healthy=True)
    yield found
    items.release.set()
    found.stop()


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with open_channel(server.address, identity_of("gateway")) as found:
        yield found


def a_piece() -> UploadItemRequest:
    return UploadItemRequest(file=HttpBody(data=b"abc"))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_a_stream_knows_its_caller_and_its_error_arrives_after_what_went_before(channel: grpc.Channel) -> None:
    with trace.calling("projects/acme/members/ada"):
        stream = ItemServiceStub(channel).DownloadItem(DownloadItemRequest(name=f"{ITEMS}/gone"))
    assert next(stream).data == b"projects/acme/members/ada"
    with pytest.raises(NotFound) as refused:
        next(stream)
    assert refused.value.reason == "GONE"


def test_the_first_message_of_an_upload_must_keep_its_rules(channel: grpc.Channel) -> None:
    sources = SourceServiceStub(channel)
    pieces = [UploadItemRequest(parent="projects/acme/sources/desk", file_name="a.jpg"), *[a_piece()] * 2]
    assert sources.UploadItem(iter(pieces)).item == f"{ITEMS}/of-6-bytes"
    with pytest.raises(InvalidArgument):
        sources.UploadItem(iter([UploadItemRequest(parent="nonsense"), *pieces]))


def test_a_stream_that_nobody_reads_on_is_ended_and_counted(channel: grpc.Channel, registry: CollectorRegistry) -> None:
    stream = ItemServiceStub(channel).DownloadItem(DownloadItemRequest(name=f"{ITEMS}/endless"))
    next(stream)
    stream.close()  # type: ignore[attr-defined] # ours is a generator
    labels = {"method": DOWNLOAD, "code": "CANCELLED"}
    wait_for(lambda: registry.get_sample_value("vesta_sample_rpc_seconds_count", labels) == 1)


def test_a_full_server_refuses_and_still_answers_health(
    server: Server, items: Items, registry: CollectorRegistry
) -> None:
    with grpc.insecure_channel(server.address) as channel:
        held = [
            ItemServiceStub(channel).GetItem.future(GetItemRequest(name=f"{ITEMS}/a"), metadata=token())
            for _ in range(2)
        ]
        for _ in held:
            assert items.held.acquire(timeout=PATIENCE_SECONDS)
        with open_channel(server.address, identity_of("gateway")) as ours, pytest.raises(ResourceExhausted) as refused:
            ItemServiceStub(ours).GetItem(GetItemRequest(name=f"{ITEMS}/b"))
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)
        items.release.set()
        assert [call.result(PATIENCE_SECONDS).name for call in held] == [f"{ITEMS}/a"] * 2
        assert (
            ItemServiceStub(channel).GetItem(GetItemRequest(name=f"{ITEMS}/c"), metadata=token()).name == f"{ITEMS}/c"
        )
    assert refused.value.reason == "OVERLOADED"
    assert refused.value.retry_after is not None
    assert health.status == health_pb2.HealthCheckResponse.SERVING


def test_a_call_whose_deadline_passes_while_it_waits_for_a_thread_is_not_begun(
    items: Items, registry: CollectorRegistry
) -> None:
    server = Server(identity_of("sample"), "127.0.0.1:0", [items], registry, threads=1)
    server.start()
    with grpc.insecure_channel(server.address) as channel:
        first = ItemServiceStub(channel).GetItem.future(GetItemRequest(name=f"{ITEMS}/a"), metadata=token())
        assert items.held.acquire(timeout=PATIENCE_SECONDS)
        late = ItemServiceStub(channel).GetItem.future(
            GetItemRequest(name=f"{ITEMS}/late"), metadata=token(), timeout=0.05
        )
        with pytest.raises(grpc.RpcError) as passed:
            late.result(PATIENCE_SECONDS)
        items.release.set()
        first.result(PATIENCE_SECONDS)
        ItemServiceStub(channel).GetItem(GetItemRequest(name=f"{ITEMS}/b"), metadata=token())
    server.stop()
    assert passed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert items.asked == [f"{ITEMS}/a", f"{ITEMS}/b"]
    assert registry.get_sample_value("vesta_sample_queue_seconds_count", {"queue": "rpc"}) == 2


def test_calls_that_would_wait_too_long_for_a_thread_are_refused_with_the_time_to_come_again(
    items: Items, registry: CollectorRegistry
) -> None:
    server = Server(
        identity_of("sample"), "127.0.0.1:0", [items], registry, threads=1, queue_wait_max=timedelta(microseconds=1)
    )
    server.start()
    with grpc.insecure_channel(server.address) as channel, open_channel(server.address, identity_of("gateway")) as ours:
        items.release.set()
        ItemServiceStub(channel).GetItem(GetItemRequest(name=f"{ITEMS}/measured"), metadata=token())
        items.release.clear()
        assert items.held.acquire(timeout=PATIENCE_SECONDS)
        held = ItemServiceStub(channel).GetItem.future(GetItemRequest(name=f"{ITEMS}/a"), metadata=token())
        assert items.held.acquire(timeout=PATIENCE_SECONDS)
        with pytest.raises(ResourceExhausted) as refused:
            ItemServiceStub(ours).GetItem(GetItemRequest(name=f"{ITEMS}/b"))
        items.release.set()
        held.result(PATIENCE_SECONDS)
    server.stop()
    assert (refused.value.reason, refused.value.metadata) == ("OVERLOADED", {"queue": "rpc"})
    assert refused.value.retry_after is not None
    assert registry.get_sample_value("vesta_sample_admission_total", {"queue": "rpc", "outcome": "overloaded"}) == 1

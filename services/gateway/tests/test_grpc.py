"""The gRPC door: the same calls, the same checks."""

import hashlib
import threading
from datetime import timedelta

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from vesta_contracts.connection.v1 import (
    IngestMediaRequest,
    MediaFile,
    MediaServiceStub,
    SourceServiceStub,
    UploadItemRequest,
)
from vesta_contracts.datasets.v1 import (
    DatasetServiceStub,
    DownloadItemRequest,
    GetDatasetRequest,
    ItemServiceStub,
    ListDatasetsRequest,
    ListDatasetsResponse,
    SearchItemsRequest,
)
from vesta_contracts.gateway.v1 import ApiKeyServiceStub, EventServiceStub, GetIdentityRequest, Role, WatchEventsRequest

TRACE = "0af7651916cd43dd8448eb211c80319c"


def with_key(key, *more):
    return [("authorization", f"Bearer {key}"), *more]


def refusal(call):
    """The status code and the reason a call was refused with."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return caught.value.code(), info.reason


@pytest.fixture
def channel(running):
    with running.channel() as found:
        yield found


def test_a_call_is_forwarded_with_its_caller_and_trace(running, channel):
    key = running.member("acme", "viewer")
    forged = (("x-vesta-caller", "services/conductor"), ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"))

    DatasetServiceStub(channel).ListDatasets(
        ListDatasetsRequest(parent="projects/acme"), metadata=with_key(key, *forged)
    )

    seen = running.services.seen[-1]
    assert (seen.caller, seen.role, seen.trace_id) == ("projects/acme/members/viewer", "viewer", TRACE)


def test_errors_keep_their_details(running, channel):
    key = running.member("acme", "viewer")

    assert refusal(
        lambda: DatasetServiceStub(channel).GetDataset(
            GetDatasetRequest(name="projects/acme/datasets/x"), metadata=with_key(key)
        )
    ) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")


def test_the_services_of_the_gateway_are_available_over_grpc(running, channel):
    identity = ApiKeyServiceStub(channel).GetIdentity(GetIdentityRequest(), metadata=with_key(running.owner_key))

    assert (identity.platform_owner, identity.role) == (True, Role.ROLE_OWNER)


def test_grpc_calls_are_authorised_as_over_rest(running, channel):
    running.member("acme", "owner")
    stranger = running.member("other", "owner")
    viewer = running.member("acme", "viewer")
    datasets, items = DatasetServiceStub(channel), ItemServiceStub(channel)
    denied = grpc.StatusCode.PERMISSION_DENIED

    get = GetDatasetRequest(name="projects/acme/datasets/d")
    search = SearchItemsRequest(parent="projects/acme/datasets/d", item="projects/other/datasets/d/items/i")
    assert refusal(lambda: datasets.GetDataset(get, metadata=with_key(stranger))) == (denied, "PROJECT_DENIED")
    assert refusal(lambda: datasets.GetDataset(get)) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_MISSING")
    assert refusal(lambda: items.SearchItems(search, metadata=with_key(viewer))) == (denied, "PROJECT_DENIED")
    assert (
        refusal(lambda: datasets.GetDataset(GetDatasetRequest(), metadata=with_key(viewer)))[0]
        is grpc.StatusCode.INVALID_ARGUMENT
    )


def test_internal_rpcs_are_denied(running, channel):
    request = IngestMediaRequest(parent="projects/acme", files=[MediaFile(data=b"x")])

    assert refusal(lambda: MediaServiceStub(channel).IngestMedia(request, metadata=with_key(running.owner_key))) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "ROLE_DENIED",
    )


def test_an_upload_is_streamed(running, channel):
    key = running.member("acme", "engineer")
    pieces = [bytes([number]) * 300_000 for number in range(6)]
    requests = [UploadItemRequest(parent="projects/acme/sources/s", file=HttpBody(data=pieces[0]))]
    requests += [UploadItemRequest(file=HttpBody(data=piece)) for piece in pieces[1:]]

    answer = SourceServiceStub(channel).UploadItem(iter(requests), metadata=with_key(key))

    assert answer.media.sha256 == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_an_upload_that_a_service_rejects_by_its_first_message_ends_with_its_status(running, channel):
    key = running.member("acme", "engineer")
    parent = "projects/acme/sources/missing"
    requests = [UploadItemRequest(parent=parent, file=HttpBody(data=bytes(1_000_000)))]
    requests += [UploadItemRequest(file=HttpBody(data=bytes(1_000_000)))] * 3

    found = {
        refusal(lambda: SourceServiceStub(channel).UploadItem(iter(requests), metadata=with_key(key)))
        for _ in range(20)
    }

    assert {code for code, _ in found} == {grpc.StatusCode.NOT_FOUND}


def test_a_later_message_cannot_redirect_an_upload_to_another_project(running, channel):
    key = running.member("acme", "engineer")
    requests = [
        UploadItemRequest(parent="projects/acme/sources/s", file=HttpBody(data=b"a")),
        UploadItemRequest(parent="projects/other/sources/s", file=HttpBody(data=b"b")),
    ]

    assert refusal(lambda: SourceServiceStub(channel).UploadItem(iter(requests), metadata=with_key(key))) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "PROJECT_DENIED",
    )


def test_an_upload_without_a_message_is_rejected(running, channel):
    key = running.member("acme", "engineer")

    code, reason = refusal(lambda: SourceServiceStub(channel).UploadItem(iter(()), metadata=with_key(key)))

    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_MISSING")


def test_a_download_is_streamed(running, channel):
    running.services.download = [b"a" * 200_000, b"b" * 200_000]
    key = running.member("acme", "viewer")
    request = DownloadItemRequest(name="projects/acme/datasets/d/items/i")

    bodies = list(ItemServiceStub(channel).DownloadItem(request, metadata=with_key(key)))

    assert b"".join(body.data for body in bodies) == b"".join(running.services.download)


def test_an_invalid_message_is_rejected(running, channel):
    key = running.member("acme", "viewer")
    call = channel.unary_unary("/vesta.datasets.v1.DatasetService/GetDataset")

    assert refusal(lambda: call(b"\xff\xff", metadata=with_key(key))) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "BODY_MALFORMED",
    )


def test_unknown_fields_are_not_forwarded(running, channel):
    key = running.member("acme", "viewer")
    known = ListDatasetsRequest(parent="projects/acme").SerializeToString()
    call = channel.unary_unary("/vesta.datasets.v1.DatasetService/ListDatasets")

    call(known + b"\xfa\x3f\x03abc", metadata=with_key(key))

    assert running.services.seen[-1].request.SerializeToString() == known


def test_unknown_methods_are_unimplemented(channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/vesta.datasets.v1.DatasetService/Nothing")(b"")

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_watchers_see_events_until_they_cancel(running, channel):
    key = running.member("acme", "viewer")
    events = EventServiceStub(channel).WatchEvents(WatchEventsRequest(parent="projects/acme"), metadata=with_key(key))
    running.until(lambda: running.gateway.watchers.count == 1)
    running.publish()

    assert next(events).id == "1"
    events.cancel()
    running.until(lambda: running.gateway.watchers.count == 0)


def test_an_unreachable_service_is_unavailable(start_gateway):
    running = start_gateway(datasets_address="127.0.0.1:1")
    key = running.member("acme", "viewer")
    with running.channel() as channel:
        request = ListDatasetsRequest(parent="projects/acme")
        assert refusal(lambda: DatasetServiceStub(channel).ListDatasets(request, metadata=with_key(key))) == (
            grpc.StatusCode.UNAVAILABLE,
            "BACKEND_UNAVAILABLE",
        )


def test_health_and_reflection_require_no_key(channel):
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=10)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    listed = next(iter(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked)))

    assert health.status in {health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING}
    assert "vesta.datasets.v1.ItemService" in {service.name for service in listed.list_services_response.service}


def test_a_caller_that_reads_nothing_occupies_no_thread_of_a_service(start_gateway):
    running = start_gateway(body_idle_timeout=timedelta(milliseconds=500))
    running.services.download = [bytes(1024 * 1024)] * 50
    viewer, other = running.member("acme", "viewer"), running.member("acme", "engineer")
    request = DownloadItemRequest(name="projects/acme/datasets/d/items/i")
    with running.channel() as channel:
        streams = [ItemServiceStub(channel).DownloadItem(request, metadata=with_key(viewer)) for _ in range(40)]
        running.until(lambda: len(running.services.downloading) == 8)
        listed = DatasetServiceStub(channel).ListDatasets(
            ListDatasetsRequest(parent="projects/acme"), metadata=with_key(other), timeout=10
        )
        running.until(lambda: not running.services.downloading)
        reasons = [refusal(lambda stream=stream: list(stream))[1] for stream in streams]

    assert listed == ListDatasetsResponse()
    assert sorted(reasons) == ["CONCURRENCY_LIMITED"] * 32 + ["READER_IDLE"] * 8
    running.until(lambda: running.gateway.limits.transfers.total == 0)


@pytest.fixture
def pausing():
    """A request, and then nothing until the test is over."""
    over = threading.Event()

    def requests(*first):
        yield from first
        over.wait(30)

    yield requests
    over.set()


def test_an_idle_upload_is_cancelled(start_gateway, pausing):
    running = start_gateway(body_idle_timeout=timedelta(milliseconds=300))
    key = running.member("acme", "engineer")
    first = UploadItemRequest(parent="projects/acme/sources/s", file=HttpBody(data=b"a"))
    with running.channel() as channel:
        upload = SourceServiceStub(channel).UploadItem
        for requests in (pausing(first), pausing()):
            assert refusal(lambda requests=requests: upload(requests, metadata=with_key(key))) == (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "BODY_IDLE",
            )


def test_an_upload_above_the_limit_is_rejected_during_the_transfer(start_gateway):
    running = start_gateway(upload_bytes_max=100_000)
    key = running.member("acme", "engineer")
    requests = [UploadItemRequest(parent="projects/acme/sources/s", file=HttpBody(data=bytes(60_000)))] * 2
    with running.channel() as channel:
        assert refusal(lambda: SourceServiceStub(channel).UploadItem(iter(requests), metadata=with_key(key))) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "BODY_TOO_LARGE",
        )


def test_a_caller_without_a_key_is_rejected_before_the_body_is_read(channel, pausing):
    call = channel.stream_unary("/vesta.datasets.v1.DatasetService/ListDatasets")

    assert refusal(lambda: call(pausing(), timeout=10)) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_MISSING")


def test_messages_count_against_the_memory_limit_of_all_requests(start_gateway):
    running = start_gateway(buffered_bytes_max=100_000)
    key = running.member("acme", "engineer")
    request = ListDatasetsRequest(parent="projects/acme", page_token="x" * 100_000)
    with running.channel() as channel:
        assert refusal(lambda: DatasetServiceStub(channel).ListDatasets(request, metadata=with_key(key))) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "MEMORY_LIMITED",
        )
        DatasetServiceStub(channel).ListDatasets(ListDatasetsRequest(parent="projects/acme"), metadata=with_key(key))


@pytest.mark.parametrize("name", ["projects/Ò/datasets/d", "projects/a\nb/datasets/d", "projects/acme/datasets/\x7f"])
def test_a_malformed_name_is_rejected(running, channel, name):
    get = DatasetServiceStub(channel).GetDataset

    refused = refusal(lambda: get(GetDatasetRequest(name=name), metadata=with_key(running.owner_key)))

    assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_NAME")
    assert not running.services.seen

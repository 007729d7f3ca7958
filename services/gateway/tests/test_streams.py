"""Bytes up, bytes down and events over REST."""

import hashlib
import json
import socket
from datetime import UTC, datetime, timedelta

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from vesta_contracts.gateway.v1 import EventServiceStub, WatchEventsRequest

DOWNLOAD = "/v1/projects/acme/datasets/d/items/i:download"
UPLOAD = "/v1/projects/acme/sources/s:upload"
WATCH = "/v1/projects/acme/events:watch"


@pytest.mark.parametrize("size", [0, 1, 300_000, 5_000_000])
def test_a_file_of_any_length_is_uploaded_unchanged(running, size):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with running.rest(running.member("acme", "engineer")) as client:
        answer = client.post(
            UPLOAD,
            params={"fileName": "v.jpg", "metadata[camera]": "3"},
            content=content,
            headers={"content-type": "image/jpeg"},
        )

    assert answer.json()["media"]["sha256"] == hashlib.sha256(content).hexdigest()
    first = running.services.seen[-1].request
    assert (first.parent, first.file_name, first.file.content_type) == (
        "projects/acme/sources/s",
        "v.jpg",
        "image/jpeg",
    )
    assert len(first.file.data) <= 600_000


def test_an_upload_without_a_length_is_accepted(running):
    with running.rest(running.member("acme", "engineer")) as client:
        answer = client.post(UPLOAD, content=iter([b"a" * 1000] * 1000))

    assert answer.json()["media"]["sizeBytes"] == "1000000"


def test_an_upload_above_the_limit_is_rejected_during_the_transfer(start_gateway):
    running = start_gateway(upload_bytes_max=1_000_000)
    with running.rest(running.member("acme", "engineer")) as client:
        told = client.post(UPLOAD, content=b"a" * 1_000_001)
        found = client.post(UPLOAD, content=iter([b"a" * 100_000] * 11))

    assert (told.status_code, found.status_code) == (413, 413)
    assert found.json()["error"]["details"][0]["reason"] == "BODY_TOO_LARGE"


def test_an_upload_requires_a_role_in_the_project(running):
    viewer, stranger = running.member("acme", "viewer"), running.member("other", "engineer")
    for key in (viewer, stranger):
        with running.rest(key) as client:
            assert client.post(UPLOAD, content=b"x").status_code == 403
    assert not any(seen.method == "UploadItem" for seen in running.services.seen)


def test_an_idle_upload_is_cancelled(start_gateway):
    running = start_gateway(body_idle_timeout=timedelta(milliseconds=300))
    key = running.member("acme", "engineer")
    host, port = running.gateway.rest_address.split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(
            f"POST {UPLOAD} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-length: 100\r\n\r\nabc".encode()
        )
        connection.settimeout(10)
        answer = ""
        while "BODY_IDLE" not in answer:
            answer += connection.recv(65536).decode()

    assert answer.startswith("HTTP/1.1 504")


def test_a_download_that_fits_in_one_piece_has_a_length_and_an_etag(running):
    with running.rest(running.member("acme", "viewer")) as client:
        answer = client.get(DOWNLOAD)
        known = client.get(DOWNLOAD, headers={"if-none-match": answer.headers["etag"]})

    assert answer.content == b"pixels"
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["content-length"] == "6"
    assert (known.status_code, known.content) == (304, b"")


def test_a_long_download_is_streamed(running):
    running.services.download = [bytes([number]) * 500_000 for number in range(8)]
    with running.rest(running.member("acme", "viewer")) as client:
        answer = client.get(DOWNLOAD)

    assert answer.content == b"".join(running.services.download)


def test_a_download_of_a_missing_file_is_404(running):
    with running.rest(running.member("acme", "viewer")) as client:
        answer = client.get("/v1/projects/acme/datasets/d/items/missing:download")

    assert answer.status_code == 404


def test_an_interrupted_download_is_not_reported_as_complete(running):
    running.services.download = [b"a" * 100_000, b"b" * 100_000, b"BREAK"]
    with running.rest(running.member("acme", "viewer")) as client, pytest.raises(httpx.RemoteProtocolError):
        client.get(DOWNLOAD)


def test_events_are_streamed_immediately(running):
    key = running.member("acme", "viewer")
    with running.rest(key) as client, client.stream("GET", WATCH) as answer:
        running.until(lambda: running.gateway.watchers.count == 1)
        running.publish(project="projects/other", event_id="foreign")
        running.publish("vesta.serving.prediction.v1.created", event_id="unasked")
        running.publish()
        data = next(line for line in answer.iter_lines() if line.startswith("data: "))

    assert answer.headers["content-type"] == "text/event-stream"
    event = json.loads(data.removeprefix("data: "))
    assert (event["id"], event["type"]) == ("1", "vesta.annotation.task.v1.accepted")
    running.until(lambda: running.gateway.watchers.count == 0)


def test_watching_another_project_is_rejected(running):
    with running.rest(running.member("other", "owner")) as client:
        assert client.get(WATCH).status_code == 403


def test_a_stream_of_events_ends_when_its_key_is_revoked(start_gateway):
    running = start_gateway(key_cache=timedelta(milliseconds=200))
    owner, key = running.member("acme", "owner"), running.member("acme", "viewer")
    with running.rest(key) as client, client.stream("GET", WATCH) as answer:
        running.until(lambda: running.gateway.watchers.count == 1)
        with running.rest(owner) as other:
            other.delete("/v1/projects/acme/members/viewer").raise_for_status()
        start = datetime.now(UTC)
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()

    assert datetime.now(UTC) - start < timedelta(seconds=3)
    assert running.gateway.watchers.count == 0


def test_a_stream_of_events_ends_when_the_role_changes(start_gateway):
    running = start_gateway(key_cache=timedelta(milliseconds=200))
    owner, key = running.member("acme", "owner"), running.member("acme", "viewer")
    with running.channel() as channel:
        request = WatchEventsRequest(parent="projects/acme")
        events = EventServiceStub(channel).WatchEvents(request, metadata=[("x-api-key", key)])
        running.until(lambda: running.gateway.watchers.count == 1)
        with running.rest(owner) as client:
            client.patch("/v1/projects/acme/members/viewer", json={"role": "ROLE_ENGINEER"}).raise_for_status()
        with pytest.raises(grpc.RpcError) as caught:
            next(events)

    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert (caught.value.code(), info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_CHANGED")


def test_an_error_during_a_stream_of_events_is_reported(running):
    key = running.member("acme", "viewer")
    with running.rest(key) as client, client.stream("GET", WATCH) as answer:
        running.until(lambda: running.gateway.watchers.count == 1)
        running.loop.call_soon_threadsafe(running.gateway.watchers.close)
        lines = list(answer.iter_lines())

    assert "event: error" in lines
    error = json.loads(lines[lines.index("event: error") + 1].removeprefix("data: "))["error"]
    assert error["status"] == "UNAVAILABLE"


def test_streams_have_separate_slots(start_gateway):
    running = start_gateway(concurrent_watchers_per_key_max=2)
    key = running.member("acme", "viewer")
    with running.rest(key) as client, client.stream("GET", WATCH), client.stream("GET", WATCH):
        running.until(lambda: running.gateway.watchers.count == 2)
        third = client.get(WATCH)
        unary = client.get("/v1/identity")

    assert (third.status_code, unary.status_code) == (429, 200)
    assert third.json()["error"]["details"][0]["reason"] == "CONCURRENCY_LIMITED"


def test_a_disconnected_upload_leaves_nothing_behind(running):
    key = running.member("acme", "engineer")
    host, port = running.gateway.rest_address.split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(
            f"POST {UPLOAD} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-length: 9000000\r\n\r\n".encode()
            + b"a" * 400_000
        )
        running.until(lambda: running.gateway.limits.transfers.total == 1)
    running.until(lambda: running.gateway.limits.transfers.total == 0)


def test_a_download_that_is_not_read_is_cancelled(start_gateway):
    running = start_gateway(body_idle_timeout=timedelta(milliseconds=300))
    running.services.download = [bytes(1024 * 1024)] * 50
    key = running.member("acme", "viewer")
    host, port = running.gateway.rest_address.split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(f"GET {DOWNLOAD} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\r\n".encode())
        running.until(lambda: running.services.downloading)
        running.until(lambda: not running.services.downloading)
        assert running.gateway.limits.transfers.total == 0

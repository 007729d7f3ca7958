"""The SDK against a small real server: the key goes along, pages are followed, refusals say what happened."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.api import httpbody_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from vesta import ApiError, Vesta
from vesta.channel import PATIENCE
from vesta.overload import Patience
from vesta.waiting import wait_until
from vesta_contracts.connection.v1 import (
    CreateSyncRequest,
    SourceServiceServicer,
    Sync,
    SyncServiceServicer,
    UploadItemResponse,
    add_SourceServiceServicer_to_server,
    add_SyncServiceServicer_to_server,
)
from vesta_contracts.datasets.v1 import (
    ArchiveServiceServicer,
    Dataset,
    DatasetServiceServicer,
    GetDatasetRequest,
    ListDatasetsRequest,
    ListDatasetsResponse,
    add_ArchiveServiceServicer_to_server,
    add_DatasetServiceServicer_to_server,
)
from vesta_contracts.serving.v1 import (
    DeploymentServiceServicer,
    ImagePrediction,
    PredictResponse,
    add_DeploymentServiceServicer_to_server,
)


class Datasets(DatasetServiceServicer):
    """Five datasets, two a page; one that is refused."""

    def ListDatasets(self, request, context):
        start = int(request.page_token or 0)
        names = [f"projects/acme/datasets/d{index}" for index in range(5)][start : start + 2]
        following = str(start + 2) if start + 2 < 5 else ""
        return ListDatasetsResponse(datasets=[Dataset(name=name) for name in names], next_page_token=following)

    def GetDataset(self, request, context):
        if request.name == "long":
            context.set_trailing_metadata([("grpc-status-details-bin", b"\x08\x03\x12\x05whole")])
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "cut")
        if dict(context.invocation_metadata())["authorization"] != "Bearer vesta_key":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="the name is wrong; try another")
        bad = error_details_pb2.BadRequest(field_violations=[{"field": "name", "description": "is wrong"}])
        for detail in (error_details_pb2.ErrorInfo(reason="NAME_WRONG", metadata={"a": "b"}), bad):
            status.details.add().Pack(detail)
        context.abort_with_status(rpc_status.to_status(status))


class Archives(ArchiveServiceServicer):
    """Sends half an archive, and the rest where it is not called broken."""

    def DownloadArchive(self, request, context):
        yield httpbody_pb2.HttpBody(data=b"half")
        if request.archive_key == "broken":
            context.abort(grpc.StatusCode.NOT_FOUND, "it is gone")
        yield httpbody_pb2.HttpBody(data=b"rest")


REFUSALS = 2


def refuse_for_being_busy(context: grpc.ServicerContext) -> None:
    """Ends the call as a platform that is busy does."""
    status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="there is too much to do")
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(10)
    for detail in (error_details_pb2.ErrorInfo(reason="OVERLOADED"), retry):
        status.details.add().Pack(detail)
    context.abort_with_status(rpc_status.to_status(status))


class Sources(SourceServiceServicer):
    """Counts what is uploaded; the source `busy` is so at first."""

    def __init__(self) -> None:
        self.refusals = 0

    def UploadItem(self, request_iterator, context):
        messages = list(request_iterator)
        if "busy" in messages[0].parent:
            if self.refusals < REFUSALS:
                self.refusals += 1
                refuse_for_being_busy(context)
            return UploadItemResponse(item=f"after {self.refusals} refusals")
        size = sum(len(message.file.data) for message in messages)
        return UploadItemResponse(item=f"{messages[0].file_name}:{size}")


class Deployments(DeploymentServiceServicer):
    """Answers each image with its first byte; the deployment `busy` is so at first, that for the impatient always."""

    def __init__(self) -> None:
        self.refusals = 0

    def Predict(self, request, context):
        if "busy" in request.name:
            if self.refusals < REFUSALS or request.name.endswith("impatient"):
                self.refusals += 1
                refuse_for_being_busy(context)
            return PredictResponse(predictions=[ImagePrediction(model_version=f"after {self.refusals} refusals")])
        return PredictResponse(
            predictions=[ImagePrediction(model_version=str(image.data[0])) for image in request.inputs]
        )


class Syncs(SyncServiceServicer):
    """Is away when it is first asked, and answers with the request_ids that it was asked with."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def CreateSync(self, request, context):
        self.asked.append(request.request_id)
        if len(self.asked) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "come again")
        return Sync(error=" ".join(self.asked) if len(self.asked) == 2 else request.request_id)


def a_platform(address: str = "127.0.0.1:0") -> tuple[grpc.Server, str]:
    """A platform, answering, and its address."""
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", 64 * 1024 * 1024)])
    add_DeploymentServiceServicer_to_server(Deployments(), server)
    add_SyncServiceServicer_to_server(Syncs(), server)
    add_DatasetServiceServicer_to_server(Datasets(), server)
    add_SourceServiceServicer_to_server(Sources(), server)
    add_ArchiveServiceServicer_to_server(Archives(), server)
    port = server.add_insecure_port(address)
    server.start()
    return server, f"127.0.0.1:{port}"


@pytest.fixture
def address() -> Iterator[str]:
    server, address = a_platform()
    yield address
    server.stop(None).wait()


def test_pages_are_followed_to_the_end(address: str) -> None:
    with Vesta(address, "vesta_key") as client:
        found = list(client.pages(client.datasets.ListDatasets, ListDatasetsRequest(parent="projects/acme")))
    assert [one.name[-2:] for one in found] == ["d0", "d1", "d2", "d3", "d4"]


def test_a_refusal_tells_its_reason_and_the_wrong_field(address: str) -> None:
    with Vesta(address, "vesta_key") as client, pytest.raises(ApiError) as refused:
        client.datasets.GetDataset(GetDatasetRequest(name="x"))
    error = refused.value
    assert (error.code, error.reason, error.metadata) == ("INVALID_ARGUMENT", "NAME_WRONG", {"a": "b"})
    assert "name: is wrong" in str(error)


def test_a_wrong_key_is_told(address: str) -> None:
    with Vesta(address, "vesta_other") as client, pytest.raises(ApiError, match="who are you"):
        client.datasets.GetDataset(GetDatasetRequest(name="x"))


def test_images_are_cut_into_messages_that_can_be_sent(address: str) -> None:
    images = (bytes([index]) * 3_000_000 for index in range(24))  # more than one message may hold
    with Vesta(address, "vesta_key") as client:
        answers = client.predict("projects/acme/deployments/d", images)
    assert [answer.model_version for answer in answers] == [str(index) for index in range(24)]


def test_what_is_sent_again_bears_the_same_request_id(address: str) -> None:
    with Vesta(address, "vesta_key") as client:
        made = client.syncs.CreateSync(CreateSyncRequest(parent="projects/acme/sources/desk"))
        again = client.syncs.CreateSync(CreateSyncRequest(parent="projects/acme/sources/desk", request_id="mine"))
    first, second = made.error.split()  # the server answers what it was asked with, the first time with UNAVAILABLE
    assert first == second != ""
    assert again.error == "mine"


def test_a_platform_that_is_started_again_is_waited_for() -> None:
    request = ListDatasetsRequest(parent="projects/acme", page_size=1)
    server, address = a_platform()
    with Vesta(address, "vesta_key") as client:
        before = client.datasets.ListDatasets(request)
        server.stop(None).wait()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(client.datasets.ListDatasets, request)
            time.sleep(4)  # longer than gRPC tries by itself
            assert not asked.done()
            server, _ = a_platform(address)
            assert asked.result(timeout=20) == before
    server.stop(None).wait()


def test_patience_has_an_end() -> None:
    request = ListDatasetsRequest(parent="projects/acme", page_size=1)
    server, address = a_platform()
    with Vesta(address, "vesta_key", patience=timedelta(0)) as client:
        client.datasets.ListDatasets(request)
        server.stop(None).wait()
        with pytest.raises(ApiError, match="no response from the server"):
            client.datasets.ListDatasets(request)


def test_an_address_that_never_answered_is_not_waited_for() -> None:
    server, address = a_platform()
    server.stop(None).wait()
    began = time.monotonic()
    with Vesta(address, "vesta_key") as client, pytest.raises(ApiError, match="check the address"):
        client.datasets.ListDatasets(ListDatasetsRequest(parent="projects/acme"))
    assert time.monotonic() - began < PATIENCE.total_seconds() / 2


@pytest.mark.parametrize(
    ("code", "reason", "is_outage"),
    [
        ("UNAVAILABLE", "", True),
        ("UNAVAILABLE", "BACKEND_UNAVAILABLE", True),
        ("UNAVAILABLE", "DEPLOYMENT_NOT_READY", False),
        ("INTERNAL", "", True),
        ("INTERNAL", "INTERNAL", False),
        ("NOT_FOUND", "", False),
    ],
)
def test_an_outage_is_told_from_an_answer(code: str, reason: str, is_outage: bool) -> None:
    assert ApiError(code=code, message="m", reason=reason).is_outage is is_outage


def test_a_file_is_sent_in_pieces(address: str, tmp_path: Path) -> None:
    path = tmp_path / "big.jpg"
    path.write_bytes(bytes(2_500_000))
    with Vesta(address, "vesta_key") as client:
        assert client.upload("projects/acme/sources/desk", path).item == "big.jpg:2500000"


def test_an_archive_that_breaks_off_leaves_what_was_there(address: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"before")
    with Vesta(address, "vesta_key") as client:
        with pytest.raises(ApiError):
            client.download_archive("projects/acme", "broken", path)
        assert path.read_bytes() == b"before"
        client.download_archive("projects/acme", "whole", path)
    assert path.read_bytes() == b"halfrest"
    assert list(tmp_path.iterdir()) == [path]


def test_a_refusal_whose_details_do_not_fit_its_message_keeps_code_and_message(address: str) -> None:
    with Vesta(address, "vesta_key") as client, pytest.raises(ApiError) as refused:
        client.datasets.GetDataset(GetDatasetRequest(name="long"))
    assert (refused.value.code, refused.value.message) == ("INVALID_ARGUMENT", "cut")


def test_an_address_without_a_port_is_refused_with_an_example() -> None:
    with pytest.raises(ValueError, match="has no port"):
        Vesta("localhost", "vesta_key")


def test_waiting_answers_the_first_that_is_done_and_gives_up_in_time() -> None:
    answers = iter([1, 2, 3])
    seen: list[int] = []
    assert wait_until(lambda: next(answers), lambda answer: answer == 3, seen.append) == 3
    assert seen == [1, 2, 3]
    assert wait_until(lambda: 4, lambda answer: answer == 4, deadline=None) == 4
    with pytest.raises(TimeoutError, match="not done"):
        wait_until(threading.get_ident, lambda _: False, deadline=timedelta(milliseconds=60))


def busy(pause_seconds: float | None = 2.0, code: str = "RESOURCE_EXHAUSTED", reason: str = "OVERLOADED") -> ApiError:
    return ApiError(code=code, message="m", reason=reason, retry_after_seconds=pause_seconds)


class Clock:
    """A clock that pauses move on."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.seconds += seconds


def test_a_busy_platform_is_asked_again_after_the_time_that_it_named_and_not_for_ever() -> None:
    clock = Clock()
    patience = Patience(timedelta(seconds=20), clock, clock.sleep)

    while patience.pause_after(busy(2.0)):
        pass

    assert 20 / 3 - 1 <= len(clock.pauses) <= 10
    assert all(2.0 <= pause <= 3.0 for pause in clock.pauses)
    assert clock.seconds < 20


def test_what_a_platform_asks_for_is_cut() -> None:
    clock = Clock()
    assert Patience(timedelta(hours=1), clock, clock.sleep).pause_after(busy(1e9))
    assert clock.seconds < 60


@pytest.mark.parametrize(
    "error", [busy(None), busy(1.0, "UNAVAILABLE"), busy(1.0, "NOT_FOUND"), busy(reason="STORAGE_FULL")]
)
def test_other_refusals_are_not_repeated(error: ApiError) -> None:
    clock = Clock()
    assert not Patience(timedelta(hours=1), clock, clock.sleep).pause_after(error)
    assert not clock.pauses


def test_calls_and_uploads_that_a_busy_platform_refuses_are_made_again(address: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    with Vesta(address, "vesta_key") as client:
        assert client.predict("projects/acme/deployments/busy", [b"x"])[0].model_version == "after 2 refusals"
        assert client.upload("projects/acme/sources/busy", path).item == "after 2 refusals"
    with Vesta(address, "vesta_key", patience=timedelta(0)) as client, pytest.raises(ApiError) as refused:
        client.predict("projects/acme/deployments/busy-for-the-impatient", [b"x"])
    assert refused.value.is_overload

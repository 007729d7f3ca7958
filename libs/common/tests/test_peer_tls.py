"""Calls between services over TLS: only to who has the name, also while certificates are renewed; health in plain text beside."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vesta_admin.authority import KeyPair, issue, new_authority
from vesta_common.errors import Unavailable
from vesta_common.identity import CredentialFiles, Identity
from vesta_common.identity.credentials import LOOK_SECONDS
from vesta_common.rpc.client import open_channel
from vesta_common.rpc.server import LIVE, Server
from vesta_contracts.annotation.v1 import GetTaskRequest, Task, TaskServiceServicer, TaskServiceStub

REQUEST = GetTaskRequest(name="projects/acme/campaigns/vans/tasks/t1")
AUTHORITY = new_authority(datetime.now(UTC))


class Tasks(TaskServiceServicer):
    """Answers."""

    def GetTask(self, request, context):
        return Task(name=request.name)


def an_identity(folder: Path, service: str, host: str = "127.0.0.1", authority: KeyPair = AUTHORITY) -> Identity:
    folder.mkdir(exist_ok=True)
    files = CredentialFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    pair = issue(authority, service, [host], datetime.now(UTC))
    files.key.write_bytes(pair.key)
    files.certificate.write_bytes(pair.certificate)
    files.authorities.write_bytes(authority.certificate)
    return Identity(files, has_tls=True)


@contextmanager
def a_server(identity: Identity) -> Iterator[Server]:
    server = Server(identity, "127.0.0.1:0", [Tasks()], health_address="127.0.0.1:0")
    server.start()
    server.set_healthy(healthy=True)
    try:
        yield server
    finally:
        server.stop()


def test_a_call_goes_over_tls_and_not_in_plain_text(tmp_path: Path) -> None:
    gateway = an_identity(tmp_path / "gateway", "gateway")
    with a_server(an_identity(tmp_path / "annotation", "annotation")) as server:
        with open_channel(server.address, gateway) as channel:
            assert TaskServiceStub(channel).GetTask(REQUEST).name == REQUEST.name
        with grpc.insecure_channel(server.address) as plain, pytest.raises(grpc.RpcError) as refused:
            TaskServiceStub(plain).GetTask(REQUEST, metadata=[gateway.metadata("annotation")], timeout=20)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("impostor", ["another name", "another authority"])
def test_a_server_without_the_right_certificate_is_not_called(tmp_path: Path, impostor: str) -> None:
    gateway = an_identity(tmp_path / "gateway", "gateway")
    identity = (
        an_identity(tmp_path / "other", "training", host="training")
        if impostor == "another name"
        else an_identity(tmp_path / "other", "annotation", authority=new_authority(datetime.now(UTC)))
    )
    with a_server(identity) as server, open_channel(server.address, gateway) as channel, pytest.raises(Unavailable):
        TaskServiceStub(channel).GetTask(REQUEST, timeout=5)


def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    def shown() -> x509.Certificate:
        host, _, port = server.address.rpartition(":")
        return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port))).encode())

    annotation = an_identity(tmp_path / "annotation", "annotation")
    with a_server(annotation) as server:
        first = shown()
        assert first == annotation.credentials.certificate
        an_identity(tmp_path / "annotation", "annotation")
        deadline = datetime.now(UTC).timestamp() + 20 * LOOK_SECONDS
        while shown() == first:
            assert datetime.now(UTC).timestamp() < deadline
        assert shown() == annotation.credentials.certificate
        with open_channel(server.address, an_identity(tmp_path / "gateway", "gateway")) as channel:
            assert TaskServiceStub(channel).GetTask(REQUEST).name == REQUEST.name


def test_health_has_a_plain_door_of_its_own_that_answers_nothing_else(tmp_path: Path) -> None:
    with (
        a_server(an_identity(tmp_path / "annotation", "annotation")) as server,
        grpc.insecure_channel(server.health_address) as channel,
    ):
        for name in ("", LIVE):
            asked = health_pb2.HealthCheckRequest(service=name)
            assert health_pb2_grpc.HealthStub(channel).Check(asked, timeout=20).status == 1
        with pytest.raises(grpc.RpcError) as refused:
            TaskServiceStub(channel).GetTask(REQUEST, timeout=20)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

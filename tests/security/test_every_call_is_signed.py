"""No process calls a service without a token of this platform, whatever RPC it calls and whatever headers it sends."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vesta_admin.authority import issue, new_authority
from vesta_common.errors import from_rpc_error
from vesta_common.identity import PEERS, CredentialFiles, Identity
from vesta_common.identity.tokens import TOKEN_KEY, sign
from vesta_gateway.contracts.methods import Rpc, all_rpcs
from vesta_local import identities
from vesta_local.testing import WholePlatform

pytestmark = pytest.mark.no_events

TIMEOUT_SECONDS = 30.0
MEMBER = "projects/acme/members/ada"
FORGED = (
    ("x-vesta-role", "owner"),
    ("x-vesta-caller", "platform/owner"),
    ("x-vesta-service", "conductor"),
    ("x-forwarded-client-cert", "URI=spiffe://vesta/gateway"),
)
SERVICES = tuple(service for service in PEERS if service != "gateway")
INNER_RPCS = [rpc for rpc in all_rpcs() if rpc.backend != "gateway"]
Metadata = list[tuple[str, str]]


@pytest.fixture(scope="module")
def channels(platform: WholePlatform) -> Iterator[dict[str, grpc.Channel]]:
    """A plain channel to each service, as any process can open it."""
    doors = {**{service: service for service in SERVICES}, "gateway": "gateway_grpc"}
    with ExitStack() as stack:
        yield {
            service: stack.enter_context(grpc.insecure_channel(platform.addresses[door]))
            for service, door in doors.items()
        }


@pytest.fixture(scope="module")
def identity(platform: WholePlatform) -> Callable[[str], Identity]:
    """The identity of a service of the platform, as only that service can have it."""
    return lambda service: Identity(identities.credential_files(platform.home.identities, service))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """Somebody who calls itself the gateway, by an authority of its own."""
    folder, now = tmp_path_factory.mktemp("stranger"), datetime.now(UTC)
    authority = new_authority(now)
    pair = issue(authority, "gateway", ["localhost"], now)
    files = CredentialFiles(*(Path(folder / name) for name in ("tls.crt", "tls.key", "ca.crt")))
    for path, pem in zip(
        (files.certificate, files.key, files.authorities),
        (pair.certificate, pair.key, authority.certificate),
        strict=True,
    ):
        path.write_bytes(pem)
    return Identity(files)


def refusal(channel: grpc.Channel, rpc: Rpc, metadata: Metadata) -> tuple[str, str]:
    """The code and the reason with which an RPC is refused; OK where it is not."""
    call = channel.stream_stream(rpc.path)(iter([b""]), metadata=metadata, timeout=TIMEOUT_SECONDS)
    try:
        next(iter(call), None)
    except grpc.RpcError as error:
        found = from_rpc_error(error)
        return found.code.name, found.reason
    return "OK", ""


def bearer(identity: Identity, audience: str, role: str, now: float) -> tuple[str, str]:
    """A token that a service could sign, had it been taken over."""
    return TOKEN_KEY, f"Bearer {sign(identity.credentials, audience, MEMBER, role, now)}"


@pytest.mark.parametrize("rpc", INNER_RPCS, ids=lambda rpc: rpc.full_name.removeprefix("vesta."))
def test_every_rpc_refuses_whom_it_does_not_know(
    rpc: Rpc, channels: dict[str, grpc.Channel], identity: Callable[[str], Identity], stranger: Identity
) -> None:
    service = rpc.backend
    elsewhere = next(peer for peer in PEERS["gateway"] if peer != service)
    may_not = next((one for one in SERVICES if service in PEERS[one] and one != "conductor"), "")
    no_caller = next(one for one in SERVICES if service not in PEERS[one])
    now = time.time()
    attempts: list[tuple[Metadata, tuple[str, str]]] = [
        ([], ("UNAUTHENTICATED", "TOKEN_MISSING")),
        (list(FORGED), ("UNAUTHENTICATED", "TOKEN_MISSING")),
        ([*FORGED, stranger.metadata(service, MEMBER, "owner")], ("UNAUTHENTICATED", "TOKEN_INVALID")),
        ([bearer(identity("gateway"), elsewhere, "owner", now)], ("UNAUTHENTICATED", "TOKEN_INVALID")),
        ([bearer(identity("gateway"), service, "owner", now - 300)], ("UNAUTHENTICATED", "TOKEN_INVALID")),
        ([bearer(identity(no_caller), service, "", now)], ("PERMISSION_DENIED", "CALLER_NOT_ALLOWED")),
    ]
    if may_not:
        attempts.append(
            ([*FORGED, bearer(identity(may_not), service, "owner", now)], ("PERMISSION_DENIED", "ROLE_NOT_ALLOWED"))
        )

    assert [refusal(channels[service], rpc, metadata) for metadata, _ in attempts] == [said for _, said in attempts]


def test_the_gateway_takes_keys_alone_and_no_token_of_a_service(
    channels: dict[str, grpc.Channel], identity: Callable[[str], Identity]
) -> None:
    for rpc in all_rpcs():
        for metadata in ([], list(FORGED), [bearer(identity("conductor"), "gateway", "owner", time.time())]):
            code, _ = refusal(channels["gateway"], rpc, metadata)
            assert code in {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}, (
                rpc.full_name
            )  # many refusals are a limit of their own


def test_a_token_of_the_platform_opens_what_headers_do_not(
    channels: dict[str, grpc.Channel], identity: Callable[[str], Identity]
) -> None:
    (rpc,) = (one for one in INNER_RPCS if one.full_name.endswith("DatasetService.ListDatasets"))
    code, _ = refusal(channels["datasets"], rpc, [identity("gateway").metadata("datasets", MEMBER, "owner")])
    assert code == "INVALID_ARGUMENT"  # the request is empty: it was read


@pytest.mark.parametrize("service", SERVICES)
def test_health_alone_is_told_to_everybody(service: str, channels: dict[str, grpc.Channel]) -> None:
    answer = health_pb2_grpc.HealthStub(channels[service]).Check(
        health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS
    )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    for method in ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "/vesta.x.v1.Y/Z"):
        call = channels[service].stream_stream(method)(iter([b""]), timeout=TIMEOUT_SECONDS)
        with pytest.raises(grpc.RpcError) as refused:
            next(iter(call))
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

"""Clients of the backend services. They forward serialized requests, and return responses without decoding them.

Calls are balanced over all replicas of a service. Read-only calls are retried if a replica becomes unavailable. Other calls are not
retried, because only the client can do that safely, with its `request_id`.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vesta_common.errors import Unavailable
from vesta_common.identity import Identity, audience_of
from vesta_common.identity.transport import channel_credentials
from vesta_common.rpc.addresses import target_of
from vesta_common.rpc.client import BALANCED, RECONNECT_BACKOFF_MAX_MS, RESOLVE_INTERVAL_MIN_MS
from vesta_common.rpc.health import problems_in

from vesta_gateway.contracts.methods import Rpc, all_rpcs

MESSAGE_BYTES_MAX = 80 * 1024 * 1024
Metadata = Sequence[tuple[str, str]]
CALLER_KEY = "x-vesta-caller"
ROLE_KEY = "x-vesta-role"
"""Metadata keys for the caller and its role, used only inside this process. Backends read both from the token."""
_RETRIES = {
    "maxAttempts": 3,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def _service_configuration() -> str:
    reading = [
        {"service": rpc.descriptor.containing_service.full_name, "method": rpc.descriptor.name}
        for rpc in all_rpcs()
        if rpc.is_unary and rpc.only_reads
    ]
    return json.dumps({**BALANCED, "methodConfig": [{"name": reading, "retryPolicy": _RETRIES}]})


_OPTIONS = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.service_config", _service_configuration()),
    ("grpc.dns_min_time_between_resolutions_ms", RESOLVE_INTERVAL_MIN_MS),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_BACKOFF_MAX_MS),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.use_local_subchannel_pool", 1),
)


HEALTH_TIMEOUT_SECONDS = 2.0


class ResponseStream(Protocol):
    """The responses of a running call, as serialized messages."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yields the responses. Raises the error of the call."""
        ...

    async def headers(self) -> Mapping[str, str]:
        """Returns the initial metadata of the call."""
        ...

    def cancel(self) -> None:
        """Cancels the call."""
        ...


class Backend(Protocol):
    """A backend service."""

    async def unary(self, rpc: Rpc, request: bytes, metadata: Metadata, timeout_seconds: float) -> bytes:
        """Makes a unary call. Returns the serialized response."""
        ...

    def stream(
        self, rpc: Rpc, requests: AsyncIterator[bytes], metadata: Metadata, timeout_seconds: float | None
    ) -> ResponseStream:
        """Starts a streaming call."""
        ...


class RemoteBackend:
    """A service at a network address.

    Args:
        service: the service's name.
        address: HOST:PORT, or several (see `vesta_common.rpc.addresses`). If empty, every call fails with UNAVAILABLE.
        identity: the gateway's identity, which signs each call.
    """

    def __init__(self, service: str, address: str, identity: Identity) -> None:
        self._service = service
        self._identity = identity
        self._channel = _open_channel(address, identity) if address else None
        self._unary: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    async def unary(self, rpc: Rpc, request: bytes, metadata: Metadata, timeout_seconds: float) -> bytes:
        """Makes a unary call. Returns the serialized response."""
        method = self._unary.get(rpc.path)
        if method is None:
            method = self._unary[rpc.path] = self._open().unary_unary(rpc.path)
        return await method(request, metadata=self._signed(rpc, metadata), timeout=timeout_seconds)

    def stream(
        self, rpc: Rpc, requests: AsyncIterator[bytes], metadata: Metadata, timeout_seconds: float | None
    ) -> ResponseStream:
        """Starts a streaming call. On the wire, a single message is a stream of one message."""
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._open().stream_stream(rpc.path)
        call = method(requests, metadata=self._signed(rpc, metadata), timeout=timeout_seconds)
        return _RemoteResponseStream(call)

    def is_connected(self) -> bool:
        """Returns True if the service is connected. Starts to connect an idle channel."""
        if self._channel is None:
            return False
        return self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    async def problems(self) -> list[str]:
        """Returns the problems that the service's health check reports; empty if it is serving."""
        if self._channel is None:
            return []
        check = health_pb2_grpc.HealthStub(self._channel).Check(
            health_pb2.HealthCheckRequest(), timeout=HEALTH_TIMEOUT_SECONDS
        )
        try:
            response = await check
            reported = problems_in(await check.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            if "certificate" in (error.details() or "").lower():
                return [
                    (
                        "it does not respond because its certificate or that of the gateway is rejected; "
                        "`vesta-admin certificates` renews them"
                    )
                ]
            return [f"it does not respond ({error.code().name}); check that it is running, and its log"]
        return reported or (
            [] if response.status == health_pb2.HealthCheckResponse.SERVING else ["it is not ready; check its log"]
        )

    async def close(self) -> None:
        """Cancels running calls and closes the connection."""
        if self._channel is not None:
            await self._channel.close()

    def _signed(self, rpc: Rpc, metadata: Metadata) -> Metadata:
        """Replaces the caller and role in the metadata by a signed token."""
        plain = dict(metadata)
        caller, role = plain.pop(CALLER_KEY, ""), plain.pop(ROLE_KEY, "")
        return [*plain.items(), self._identity.metadata(audience_of(rpc.path), caller, role)]

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise Unavailable(
                f"this platform has no {self._service} service; set its address in the settings of the gateway",
                reason="BACKEND_UNAVAILABLE",
            )
        return self._channel


def _open_channel(address: str, identity: Identity) -> grpc.aio.Channel:
    if identity.has_tls:
        return grpc.aio.secure_channel(target_of(address), channel_credentials(identity), _OPTIONS)
    return grpc.aio.insecure_channel(target_of(address), _OPTIONS)


class _RemoteResponseStream:
    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        self._call = call
        _keep_status(call)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._call.__aiter__()

    async def headers(self) -> Mapping[str, str]:
        return {key: value for key, value in await self._call.initial_metadata() if isinstance(value, str)}

    def cancel(self) -> None:
        self._call.cancel()


def _keep_status(call: Any) -> None:
    """Lets a call that ends while a request is sent end with the status of the service.

    grpc.aio otherwise gives it the status INTERNAL, because the request cannot be sent: every second upload that a service rejects by its
    first message ended so. Without a status of its own, the call waits for that of the service, or of the connection.
    """
    call._cython_call = _WithoutOwnErrors(call._cython_call)  # there is no public way


class _WithoutOwnErrors:
    """The core of a call of grpc.aio, which does not set the status INTERNAL."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def set_internal_error(self, error: str) -> None:
        """Leaves the status to the service."""

"""Channels to peers: propagate trace, token and deadline, retry unavailable calls, and convert errors to VestaError.

Calls are balanced over all replicas of a peer in turn. A replica that is about to stop reports it through its health status, which every
channel watches, and receives no further calls.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc

from vesta_common import deadline, trace
from vesta_common.errors import from_rpc_error
from vesta_common.identity import Identity, audience_of
from vesta_common.identity.transport import channel_credentials
from vesta_common.rpc.addresses import target_of
from vesta_common.rpc.server import ACCEPTING_CALLS

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
CALL_TIMEOUT_SECONDS = 30.0
RECONNECT_BACKOFF_MAX_MS = 500
"""Shorter than a peer's drain time, so that clients connect to a restarted replica before the next one stops accepting calls."""
RESOLVE_INTERVAL_MIN_MS = 5_000
"""Minimum interval between DNS lookups, which happen when a connection ends. gRPC's default of 30 s would keep calls from new pods."""
BALANCED = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ACCEPTING_CALLS}}
"""Service configuration of channels: round robin over the replicas that report that they accept calls."""
# The attempts span about 3 s, enough to resolve, connect to and health-check the pod that replaces a peer's only one.
_SERVICE_CONFIGURATION = json.dumps(
    {
        **BALANCED,
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,  # the maximum that gRPC supports
                    "initialBackoff": "0.2s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)


def open_channel(address: str, identity: Identity) -> grpc.Channel:
    """Opens a channel to a peer.

    Args:
        address: HOST:PORT, or several (see `vesta_common.rpc.addresses`).
        identity: signs each call, on behalf of the member whose request is being handled, if there is one.
    """
    options = [
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.service_config", _SERVICE_CONFIGURATION),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_BACKOFF_MAX_MS),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.dns_min_time_between_resolutions_ms", RESOLVE_INTERVAL_MIN_MS),
    ]
    target = target_of(address)
    channel = (
        grpc.secure_channel(target, channel_credentials(identity), options)
        if identity.has_tls
        else grpc.insecure_channel(target, options)
    )
    return grpc.intercept_channel(channel, _PeerInterceptor(identity))


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _PeerInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return _checked(continuation(self._prepared(details), request))

    def intercept_stream_unary(self, continuation: Callable[..., Any], details: Any, requests: Any) -> Any:
        return _checked(continuation(self._prepared(details), requests))

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return _checked_stream(continuation(self._prepared(details), request))

    def intercept_stream_stream(self, continuation: Callable[..., Any], details: Any, requests: Any) -> Any:
        return _checked_stream(continuation(self._prepared(details), requests))

    def _prepared(self, details: Any) -> _Details:
        """Returns the call details with trace context, token, and a deadline that is not later than that of the call being handled."""
        metadata = list(details.metadata or ())
        metadata += trace.carrier().items()
        metadata.append(self._identity.metadata(audience_of(details.method), trace.caller(), trace.role()))
        timeout = deadline.limited(details.timeout if details.timeout is not None else CALL_TIMEOUT_SECONDS)
        return _Details(
            details.method, timeout, metadata, details.credentials, details.wait_for_ready, details.compression
        )


def _checked(call: Any) -> Any:
    """Returns the finished call, or raises its error as a VestaError."""
    error = call.exception()
    if isinstance(error, grpc.RpcError):
        raise from_rpc_error(error) from error
    return call


def _checked_stream(call: Any) -> Iterator[Any]:
    """Yields the responses of a stream. Closing the iterator cancels the call."""
    try:
        yield from call
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
    finally:
        call.cancel()

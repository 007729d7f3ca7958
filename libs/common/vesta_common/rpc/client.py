"""Channels to peers: the trace and a token go along, errors come back as our own, calls have a deadline, what was not done is retried.

Calls are balanced over all replicas of a peer, in turn. One that is to stop says so by its health, which every channel watches, and
gets no more of them.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc

from vesta_common import trace
from vesta_common.errors import from_rpc_error
from vesta_common.identity import Identity, audience_of
from vesta_common.identity.transport import channel_credentials
from vesta_common.rpc.addresses import target_of
from vesta_common.rpc.server import TAKES_CALLS

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
CALL_TIMEOUT_SECONDS = 30.0
RECONNECT_BACKOFF_MAX_MS = 500
"""Shorter than a peer drains: a replica that came back is connected to before the next one stops taking calls."""
RESOLVE_INTERVAL_MIN_MS = 5_000
"""A name is resolved again when a connection ends, and no more often than this; gRPC's own 30 s would keep calls from a new pod."""
BALANCED = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": TAKES_CALLS}}
"""Of a channel's service configuration: each replica in its turn, those alone that say they take calls."""
# Some 3 s of attempts: the pod that replaces the only one of a peer is looked up, connected to and asked for its health meanwhile.
_SERVICE_CONFIGURATION = json.dumps(
    {
        **BALANCED,
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,  # the most that gRPC makes
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
    """A channel to a peer.

    Args:
        address: HOST:PORT, or one of several (see `vesta_common.rpc.addresses`).
        identity: ours; it signs each call, on behalf of the member whose request stands behind it, if one does.
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
        """The call with a deadline, the trace and our token."""
        metadata = list(details.metadata or ())
        metadata += trace.carrier().items()
        metadata.append(self._identity.metadata(audience_of(details.method), trace.caller(), trace.role()))
        timeout = details.timeout if details.timeout is not None else CALL_TIMEOUT_SECONDS
        return _Details(
            details.method, timeout, metadata, details.credentials, details.wait_for_ready, details.compression
        )


def _checked(call: Any) -> Any:
    """The finished call, or the error it failed with."""
    error = call.exception()
    if isinstance(error, grpc.RpcError):
        raise from_rpc_error(error) from error
    return call


def _checked_stream(call: Any) -> Iterator[Any]:
    """The answers as they come; who stops reading ends the call."""
    try:
        yield from call
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
    finally:
        call.cancel()

"""The channel to the gateway: authentication of each call, errors as `ApiError`, and idempotent retries.

A call without a response is retried up to five times; if the gateway has responded before, until `patience` has
elapsed. A call that the gateway rejected because of overload (RESOURCE_EXHAUSTED with a RetryInfo) is retried after
the requested delay. A request that creates or starts something has a `request_id`, that of the caller or a new one,
so that a retry has no second effect.
"""

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import grpc

from vesta.errors import ApiError, from_rpc_error
from vesta.overload import Patience

PATIENCE = timedelta(minutes=1)
_OUTAGE_PAUSE_SECONDS = 0.5
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
_SERVICE_CONFIGURATION = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "3s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)


def open_channel(address: str, api_key: str, patience: timedelta = PATIENCE) -> grpc.Channel:
    """Opens a channel to `HOST:PORT`, or to `https://HOST:PORT` over TLS, that authenticates with `api_key`.

    Calls are balanced over all addresses of the name. Several IPv4 addresses can be given, separated by commas.

    Args:
        patience: how long a unary call waits for a platform that is overloaded, or that has responded before and is
            unavailable.

    Raises:
        ValueError: the address is not a `HOST:PORT`.
    """
    target, secure = (
        address.removeprefix("https://").removeprefix("http://").rstrip("/"),
        address.startswith("https://"),
    )
    if ":" not in target:
        raise ValueError(f"{address!r} has no port; use an address such as 127.0.0.1:8081 or https://vesta.example:443")
    if "," in target and not target.startswith(("ipv4:", "ipv6:")):
        target = f"ipv4:{target}"
    options = [
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.service_config", _SERVICE_CONFIGURATION),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]
    if secure:
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(), options)
    else:
        channel = grpc.insecure_channel(target, options)
    return grpc.intercept_channel(channel, _Caller(api_key, patience))


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Caller(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
):
    """Adds the key to each call, and converts its failure to an `ApiError`."""

    def __init__(self, api_key: str, patience: timedelta) -> None:
        self._authorization = ("authorization", f"Bearer {api_key}")
        self._patience = patience
        self._has_answered = False

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        named = _repeatable(request)
        patience = (
            self._patience if details.timeout is None else min(self._patience, timedelta(seconds=details.timeout))
        )
        trying = Patience(patience)
        while True:
            try:
                call = _checked(continuation(self._with_key(details), named))
            except ApiError as error:
                # An address that has never responded is probably wrong.
                is_away = error.is_outage and self._has_answered
                if not ((is_away and trying.pause(_OUTAGE_PAUSE_SECONDS)) or trying.pause_after(error)):
                    raise
            else:
                self._has_answered = True
                return call

    def intercept_stream_unary(self, continuation: Callable[..., Any], details: Any, requests: Any) -> Any:
        return _checked(continuation(self._with_key(details), requests))

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return _CheckedStream(continuation(self._with_key(details), request))

    def _with_key(self, details: Any) -> _Details:
        return _Details(
            details.method,
            details.timeout,
            [*(details.metadata or ()), self._authorization],
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )


def _repeatable(request: Any) -> Any:
    """Returns the request, with a new `request_id` if it has the field and it is empty."""
    if "request_id" not in request.DESCRIPTOR.fields_by_name or request.request_id:
        return request
    named = type(request)()
    named.CopyFrom(request)
    named.request_id = str(uuid.uuid4())
    return named


def _checked(call: Any) -> Any:
    """Returns the finished call, or raises its `ApiError`."""
    error = call.exception()
    if isinstance(error, grpc.RpcError):
        raise from_rpc_error(error) from error
    return call


class _CheckedStream:
    """A stream of responses whose failure is an `ApiError`."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._call
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def cancel(self) -> None:
        """Cancels the stream."""
        self._call.cancel()

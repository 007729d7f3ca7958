"""The listening servers, both in one event loop: uvicorn for REST and grpc.aio for gRPC. Both start and stop gracefully."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from vesta_common.errors import InvalidArgument, to_status
from vesta_common.rpc.health import problems_metadata
from vesta_common.rpc.server import connection_age_options

from vesta_gateway.problems import problem_of
from vesta_gateway.rest.headers import response_headers
from vesta_gateway.rest.transcoding import JSON

BACKLOG = 1024
CONNECTIONS_MAX = 8192
KEEP_ALIVE = timedelta(seconds=75)
HEAD_BYTES_MAX = 64 * 1024
HEAD_TIMEOUT = timedelta(seconds=20)
STREAMS_PER_CONNECTION_MAX = 1000
PING_INTERVAL_MIN_MS = 5_000


class RestServer:
    """Serves an ASGI application.

    Args:
        address: HOST:PORT; port 0 selects a free port.
        tls: certificate chain and key; None for plain HTTP.
        trusted_proxies: proxies whose X-Forwarded-* headers are trusted; empty for none.
        grace: time for running requests to complete after `stop`.
    """

    def __init__(
        self, app: Any, address: str, tls: tuple[Path, Path] | None, trusted_proxies: str, grace: timedelta
    ) -> None:
        self._closing = _DrainingApp(app)
        config = uvicorn.Config(
            self._closing,
            http=_Protocol,
            limit_concurrency=CONNECTIONS_MAX,
            backlog=BACKLOG,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=int(KEEP_ALIVE.total_seconds()),
            server_header=False,
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=trusted_proxies or None,
            timeout_graceful_shutdown=int(grace.total_seconds()),
            ssl_certfile=tls[0] if tls else None,
            ssl_keyfile=tls[1] if tls else None,
        )
        config.load()
        if config.ssl is not None:
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        self._server = _Server(config)
        self._socket = _listen(address)
        host, port = self._socket.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts serving."""
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started:
            if self._serving.done():
                await self._serving
            await asyncio.sleep(0.01)

    def drain(self) -> None:
        """Closes each connection after its next response, so that clients connect to other replicas. New connections are accepted."""
        self._closing.is_closing = True

    async def stop(self) -> None:
        """Rejects new connections, waits for running requests, then cancels them."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        self._socket.close()


class _DrainingApp:
    """An ASGI application that adds `Connection: close` to responses once `is_closing` is set."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.is_closing = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_closing(message: Any) -> None:
            if self.is_closing and message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, send_closing)


class _Protocol(HttpToolsProtocol):
    """HTTP/1.1 with limits on the size and duration of a request head, which uvicorn does not have."""

    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the timeout for the first request head."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timeout."""
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counts the bytes of a request head."""
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self.send_400_response(
                    f"the request head has more than {HEAD_BYTES_MAX} bytes; send fewer or shorter headers"
                )

    def on_message_begin(self) -> None:
        """Starts the timeout for a further request head."""
        super().on_message_begin()
        if self._head_timer is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """Stops the timeout."""
        self._end_head()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Responds to malformed HTTP in the format of all other errors."""
        problem = problem_of(to_status(InvalidArgument(msg, reason="HTTP_MALFORMED")))
        given = {"content-type": JSON, "content-length": str(len(problem.body)), "connection": "close"}
        headers = response_headers(given, is_tls=self.scheme == "https")
        head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + problem.body)
        self.transport.close()

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT.total_seconds(), self.transport.close)

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _Server(uvicorn.Server):
    """A uvicorn server that installs no signal handlers."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


class _Health(health.aio.HealthServicer):  # type: ignore[misc] # it has no types
    """The health service, with the current problems in the trailing metadata of a check without a name."""

    problems: Sequence[str] = ()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        if not request.service:
            context.set_trailing_metadata(problems_metadata(self.problems))
        return await super().Check(request, context)


class GrpcServer:
    """Serves a generic handler, together with the health service and server reflection.

    Args:
        services: full names of the services, for health and reflection.
        calls_max: maximum number of concurrent calls; gRPC rejects further calls.
    """

    def __init__(
        self,
        handler: grpc.GenericRpcHandler,
        services: Sequence[str],
        address: str,
        tls: tuple[Path, Path] | None,
        message_bytes_max: int,
        calls_max: int,
    ) -> None:
        options = [
            ("grpc.max_send_message_length", message_bytes_max),
            ("grpc.max_receive_message_length", message_bytes_max),
            ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION_MAX),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_INTERVAL_MIN_MS),
            ("grpc.so_reuseport", 0),
            *connection_age_options(),
        ]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=calls_max)
        self._health = _Health()
        self._names = ("", *services)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*services, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        self._server.add_generic_rpc_handlers((handler,))
        if tls:
            pair = (tls[1].read_bytes(), tls[0].read_bytes())
            port = self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        else:
            port = self._server.add_insecure_port(address)
        self.address = f"{address.rpartition(':')[0]}:{port}"

    async def start(self) -> None:
        """Starts serving."""
        await self._server.start()

    async def set_healthy(self, *, healthy: bool) -> None:
        """Sets the health status of all services."""
        status = health_pb2.HealthCheckResponse.SERVING if healthy else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._health.set(name, status)

    def set_problems(self, problems: Sequence[str]) -> None:
        """Sets the problems that health checks return with the status."""
        self._health.problems = tuple(problems)

    async def drain(self) -> None:
        """Reports NOT_SERVING permanently. Incoming calls are still served."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: timedelta) -> None:
        """Rejects new calls, waits up to `grace` for running calls, then cancels them."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace.total_seconds())


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host.strip("[]"), int(port)))
    listening.listen(BACKLOG)
    return listening

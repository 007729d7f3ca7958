"""The composition root: everything the gateway is made of, started in order and stopped gracefully."""

import asyncio
import os
import signal
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
import structlog
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, Gauge
from starlette.middleware.cors import CORSMiddleware

from vesta_common.clock import Clock, SystemClock
from vesta_common.consumer import KafkaOptions
from vesta_common.errors import from_status
from vesta_common.metrics import RpcMetrics, serve_metrics
from vesta_common.postgres import Postgres
from vesta_contracts.conductor.v1 import GetProjectRequest
from vesta_gateway import store
from vesta_gateway.api.api_keys import ApiKeyApi
from vesta_gateway.api.events import EventApi
from vesta_gateway.api.members import MemberApi
from vesta_gateway.authentication import Authenticator
from vesta_gateway.authorization import check_table
from vesta_gateway.backends import Backend, RemoteBackend
from vesta_gateway.calls import Calls, Limits
from vesta_gateway.contracts import all_rpcs
from vesta_gateway.grpc_door import GrpcDoor
from vesta_gateway.journal import Journal
from vesta_gateway.limits import ByteBudget, Slots, TokenBuckets
from vesta_gateway.openapi import comments, describe
from vesta_gateway.own import OwnBackend
from vesta_gateway.pages import all_pages
from vesta_gateway.problems import status_of
from vesta_gateway.projects import Projects
from vesta_gateway.rest_door import BodyLimits, RestDoor
from vesta_gateway.routes import Routes
from vesta_gateway.settings import Settings
from vesta_gateway.tail import Tail
from vesta_gateway.watchers import Watchers

log = structlog.get_logger()

HEALTH_INTERVAL = timedelta(seconds=1)
STOP_GRACE = timedelta(seconds=5)
ENSURE_TIMEOUT = timedelta(seconds=10)
CONNECTIONS_BACKLOG = 1024
GRPC_STREAMS_MAX = 1000
_GET_PROJECT = "vesta.conductor.v1.ProjectService.GetProject"


@dataclass
class Gateway:
    """The running gateway.

    Attributes:
        rest_address: HOST:PORT of REST, with the port that was picked.
        grpc_address: HOST:PORT of gRPC.
    """

    rest_address: str
    grpc_address: str
    _parts: "_Parts"

    async def stop(self) -> None:
        """Refuses new calls, lets running ones finish for some seconds, sends watchers home, closes what was open."""
        await self._parts.stop()


class _Parts:
    """What was started, to be stopped."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.registry = _registry()
        self.postgres = Postgres(
            settings.postgres_url, settings.postgres_schema or "gateway", settings.postgres_connections_max
        )
        self.remotes = {word: RemoteBackend(word, address) for word, address in settings.backend_addresses().items()}
        self.watchers = Watchers()
        self.tail: Tail | None = None
        self.health = health.aio.HealthServicer()
        self.grpc_server: grpc.aio.Server | None = None
        self.rest_server: uvicorn.Server | None = None
        self.tasks: list[asyncio.Task[Any]] = []

    async def start(self) -> Gateway:
        """Opens the store, then the doors."""
        settings = self.settings
        await asyncio.to_thread(self.postgres.open)
        await asyncio.to_thread(self.postgres.migrate, "vesta_gateway")
        loop = asyncio.get_running_loop()
        if settings.kafka_bootstrap:
            self.tail = Tail(
                KafkaOptions(settings.kafka_bootstrap, settings.kafka_topic_prefix),
                lambda project, event: _post(loop, self.watchers, project, event),
                self.watchers.is_watched,
            )
            self.tail.start()
        rpcs = all_rpcs()
        check_table(rpcs)
        authenticator = Authenticator(
            lambda digest: store.find_caller(self.postgres, digest, self.clock),
            bytes.fromhex(settings.owner_key_sha256),
            settings.key_cache,
            self.clock,
            time.monotonic,
        )
        limits = self._limits()
        projects = Projects(lambda project: store.add_first_owner(self.postgres, project, self.clock))
        calls = Calls(self._backends(authenticator, loop), authenticator, projects, limits)
        journal = Journal(RpcMetrics("gateway", self.registry))
        self._gauges(limits)
        rest = await self._open_rest(calls, journal)
        grpc_address = await self._open_grpc(calls, journal)
        self.tasks.append(asyncio.create_task(self._tell_health()))
        return Gateway(rest, grpc_address, self)

    def _backends(self, authenticator: Authenticator, loop: asyncio.AbstractEventLoop) -> dict[str, Backend]:
        def forget() -> None:
            loop.call_soon_threadsafe(authenticator.forget)

        ensure = partial(self._ensure_project, loop)
        own = OwnBackend(
            [
                MemberApi(self.postgres, self.clock, forget, ensure),
                ApiKeyApi(self.postgres, self.clock, forget, ensure),
                EventApi(self.watchers),
            ]
        )
        return {**self.remotes, "gateway": own}

    def _ensure_project(self, loop: asyncio.AbstractEventLoop, project: str) -> None:
        """Accepts a project that has members, or that the conductor knows: its first owner may be missing after a kill.

        Raises:
            NotFound: nobody knows it.
        """
        with self.postgres.transaction() as connection:
            if store.has_members(connection, project.split("/")[1]):
                return
        rpc = next(rpc for rpc in all_rpcs() if rpc.full_name == _GET_PROJECT)
        request = GetProjectRequest(name=project).SerializeToString()
        seconds = ENSURE_TIMEOUT.total_seconds()
        metadata = [("x-vesta-caller", "services/gateway")]
        asking = self.remotes["conductor"].unary(rpc, request, metadata, seconds)
        try:
            asyncio.run_coroutine_threadsafe(asking, loop).result(seconds)
        except grpc.aio.AioRpcError as error:
            raise from_status(status_of(error)) from error
        store.add_first_owner(self.postgres, project, self.clock)

    def _limits(self) -> Limits:
        given = self.settings
        return Limits(
            requests=TokenBuckets("requests", given.requests_per_second, given.requests_burst, time.monotonic),
            refusals=TokenBuckets(
                "requests without a good key", given.refusals_per_second, given.refusals_burst, time.monotonic
            ),
            calls=Slots("calls", given.concurrent_requests_max, given.concurrent_requests_per_key_max),
            streams=Slots("streams", given.concurrent_streams_max, given.concurrent_streams_per_key_max),
            timeout=given.call_timeout,
            recheck=given.key_cache,
        )

    def _gauges(self, limits: Limits) -> None:
        for name, text, read in (
            ("calls_active", "Calls without streams under way", lambda: limits.calls.total),
            ("streams_active", "Uploads, downloads and watchers under way", lambda: limits.streams.total),
            ("watchers_active", "Watchers of events", lambda: self.watchers.count),
        ):
            Gauge(f"vesta_gateway_{name}", text, registry=self.registry).set_function(read)

    async def _open_rest(self, calls: Calls, journal: Journal) -> str:
        settings = self.settings
        bodies = BodyLimits(
            settings.request_bytes_max,
            settings.upload_bytes_max,
            settings.body_idle_timeout,
            ByteBudget(settings.buffered_bytes_max),
        )
        rpcs = all_rpcs()
        app: Any = RestDoor(Routes(rpcs), calls, journal, bodies, all_pages(describe(rpcs, comments()), self._report))
        if settings.cors_origins:
            app = CORSMiddleware(
                app, allow_origins=list(settings.cors_origins), allow_methods=["*"], allow_headers=["*"], max_age=600
            )
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=settings.trusted_proxies or None,
            timeout_graceful_shutdown=int(STOP_GRACE.total_seconds()),
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
        config.load()
        if config.ssl is not None:
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        listening = _listen(settings.rest_address)
        self.rest_server = server = _Server(config)
        self.tasks.append(asyncio.create_task(server.serve([listening])))
        while not server.started:
            if self.tasks[-1].done():
                await self.tasks[-1]
                raise RuntimeError("REST did not start")
            await asyncio.sleep(0.01)
        host, port = listening.getsockname()[:2]
        return f"{host}:{port}"

    async def _open_grpc(self, calls: Calls, journal: Journal) -> str:
        settings = self.settings
        bytes_max = settings.request_bytes_max
        server = grpc.aio.server(
            options=[
                ("grpc.max_send_message_length", bytes_max),
                ("grpc.max_receive_message_length", bytes_max),
                ("grpc.max_concurrent_streams", GRPC_STREAMS_MAX),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=settings.concurrent_requests_max + settings.concurrent_streams_max,
        )
        rpcs = all_rpcs()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        names = sorted({rpc.descriptor.containing_service.full_name for rpc in rpcs})
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        server.add_generic_rpc_handlers((GrpcDoor(rpcs, calls, journal),))
        if settings.tls_certificate and settings.tls_key:
            pair = (settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())
            port = server.add_secure_port(settings.grpc_address, grpc.ssl_server_credentials([pair]))
        else:
            port = server.add_insecure_port(settings.grpc_address)
        await server.start()
        self.grpc_server = server
        return f"{settings.grpc_address.rpartition(':')[0]}:{port}"

    async def _report(self) -> tuple[bool, Mapping[str, str]]:
        """Whether calls can be taken, and how each part is. A service that is away does not stop calls to the others."""
        has_postgres = await asyncio.to_thread(self._reaches_postgres)
        has_events = self.tail is None or self.tail.healthy()
        parts = {"postgres": has_postgres, "events": has_events}
        parts |= {word: remote.is_connected() for word, remote in self.remotes.items()}
        return has_postgres, {word: "SERVING" if is_fine else "NOT_SERVING" for word, is_fine in parts.items()}

    def _reaches_postgres(self) -> bool:
        try:
            with self.postgres.transaction() as connection:
                connection.execute("SELECT 1")
        except Exception:  # noqa: BLE001 - whatever it is, it is away
            return False
        return True

    async def _tell_health(self) -> None:
        """Keeps the answer of gRPC's health check true."""
        told: bool | None = None
        while True:
            is_ready, _ = await self._report()
            if is_ready != told:
                told = is_ready
                serving = health_pb2.HealthCheckResponse.SERVING if told else health_pb2.HealthCheckResponse.NOT_SERVING
                await self.health.set("", serving)
            await asyncio.sleep(HEALTH_INTERVAL.total_seconds())

    async def stop(self) -> None:
        """Stops everything, within some seconds."""
        await self.health.enter_graceful_shutdown()
        self.watchers.close()
        if self.rest_server is not None:
            self.rest_server.should_exit = True
        if self.grpc_server is not None:
            await self.grpc_server.stop(STOP_GRACE.total_seconds())
        for task in self.tasks[1:]:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=STOP_GRACE.total_seconds() + 1)
        if self.tail is not None:
            await asyncio.to_thread(self.tail.stop, timedelta(seconds=2))
        for remote in self.remotes.values():
            await remote.close()
        await asyncio.to_thread(self.postgres.close)


class _Server(uvicorn.Server):
    """A uvicorn whose process belongs to somebody else, signals included."""

    def install_signal_handlers(self) -> None:
        """Leaves signals alone."""

    def capture_signals(self) -> Any:
        """Leaves signals alone."""
        from contextlib import nullcontext

        return nullcontext()


async def start(settings: Settings, clock: Clock | None = None) -> Gateway:
    """Starts the gateway; it answers when this returns."""
    parts = _Parts(settings, clock or SystemClock())
    try:
        return await parts.start()
    except BaseException:
        await parts.stop()
        raise


async def serve(settings: Settings) -> None:
    """The whole life of the process: until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    gateway = await start(settings)
    metrics = serve_metrics(settings.metrics_address, gateway._parts.registry)
    log.info(
        "service_started", rest=gateway.rest_address, grpc=gateway.grpc_address, metrics=metrics, process=os.getpid()
    )
    await stopping.wait()
    await gateway.stop()
    log.info("service_stopped")


def _post(loop: asyncio.AbstractEventLoop, watchers: Watchers, project: str, event: Any) -> None:
    """Hands an event from the tail's thread to the loop, unless that has ended."""
    try:
        loop.call_soon_threadsafe(watchers.publish, project, event)
    except RuntimeError:
        log.debug("event_after_stop")


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host.strip("[]"), int(port)))
    listening.listen(CONNECTIONS_BACKLOG)
    listening.set_inheritable(True)
    return listening


def _registry() -> CollectorRegistry:
    """A registry with the process's own figures."""
    registry = CollectorRegistry()
    for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR):
        registry.register(collector)
    return registry

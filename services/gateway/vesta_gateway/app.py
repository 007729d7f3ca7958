"""The composition root of the gateway: creates all parts, starts them in order, and stops them gracefully."""

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, Gauge
from starlette.middleware.cors import CORSMiddleware
from vesta_common.byte_budget import ByteBudget
from vesta_common.clock import Clock
from vesta_common.events.consumer import KafkaOptions
from vesta_common.identity import Identity
from vesta_common.metrics import RpcMetrics, problems_gauge
from vesta_common.rpc.health import READY, Health
from vesta_common.rpc.server import open_health_server
from vesta_common.runtime.engine_checks import engine_checks_of
from vesta_common.runtime.engine_watch import EngineCheck, EngineWatch
from vesta_common.runtime.self_checks import self_checks_of
from vesta_common.storage.postgres import Postgres
from vesta_contracts.gateway.v1 import ProjectEvent
from vesta_contracts.topics import OWNED

from vesta_gateway.access.authentication import Authenticator
from vesta_gateway.access.authorization import check_table
from vesta_gateway.access.limits import Slots, TokenBuckets
from vesta_gateway.access.throttle import Throttle
from vesta_gateway.api.api_keys import ApiKeyApi
from vesta_gateway.api.audit import AuditApi
from vesta_gateway.api.events import EventApi
from vesta_gateway.api.members import MemberApi
from vesta_gateway.audit.audit_log import AuditLog
from vesta_gateway.audit.audit_writer import AuditWriter
from vesta_gateway.background import follow_projects, prune, update_health
from vesta_gateway.calls.access_log import AccessLog
from vesta_gateway.calls.backends import Backend, RemoteBackend
from vesta_gateway.calls.dependencies import Dependencies
from vesta_gateway.calls.local_services import LocalBackend
from vesta_gateway.calls.pipeline import CallPipeline, Limits
from vesta_gateway.calls.projects import Projects
from vesta_gateway.contracts.methods import all_rpcs
from vesta_gateway.events.replay import Replay
from vesta_gateway.events.subscribers import Watchers
from vesta_gateway.events.tail import Tail, new_consumer, to_project_event
from vesta_gateway.grpc.server import GrpcApi
from vesta_gateway.openapi.document import comments, describe
from vesta_gateway.rest.application import RestApi
from vesta_gateway.rest.bodies import BodyLimits
from vesta_gateway.rest.client_address import Proxies
from vesta_gateway.rest.pages import all_pages
from vesta_gateway.rest.routes import Routes
from vesta_gateway.rest.simple_index import SimpleIndex
from vesta_gateway.servers import GrpcServer, RestServer
from vesta_gateway.settings import Settings
from vesta_gateway.store import api_keys, audit_entries, members

log = structlog.get_logger()

THREADS = 32
STOP_GRACE = timedelta(seconds=5)
CORS_MAX_AGE_SECONDS = 600


class Gateway:
    """The gateway. Start and stop it in the same event loop.

    Attributes:
        watchers: the watchers of events.
        limits: rate limits and concurrency limits.
        registry: the metrics registry.
        health_address: HOST:PORT of a plaintext server with the health service only; empty if the settings have none.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._postgres = Postgres.of(settings, "gateway")
        identity = Identity.of(settings, "gateway")
        self._remotes = {
            name: RemoteBackend(name, address, identity) for name, address in settings.backend_addresses().items()
        }
        self.watchers = Watchers()
        self._tail = self._new_tail() if settings.kafka_bootstrap else None
        self._watch = EngineWatch(_checks(settings, identity))
        self._dependencies = Dependencies(self._postgres, self._tail, self._remotes, self._watch)
        self.limits = _limits(settings)
        self.registry = _registry(self.limits, self.watchers)
        self._audit = AuditWriter(partial(audit_entries.add, self._postgres), self.registry)
        self._problem_count = problems_gauge("gateway", self.registry)
        calls = self._new_calls()
        access_log = AccessLog(RpcMetrics("gateway", self.registry))
        bodies = _body_limits(settings)
        rpcs = all_rpcs()
        check_table(rpcs)
        tls = (settings.tls_certificate, settings.tls_key) if settings.tls_certificate and settings.tls_key else None
        app: Any = RestApi(
            Routes(rpcs),
            calls,
            access_log,
            bodies,
            all_pages(describe(rpcs, comments()), self._dependencies.report, self._dependencies.problems),
            SimpleIndex(settings.wheels_folder, time.monotonic),
        )
        if settings.cors_origins:
            origins = list(settings.cors_origins)
            app = CORSMiddleware(
                app, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], max_age=CORS_MAX_AGE_SECONDS
            )
        self._rest = RestServer(app, settings.rest_address, tls, settings.trusted_proxies, STOP_GRACE)
        self._grpc = GrpcServer(
            GrpcApi(rpcs, calls, access_log, bodies, Proxies(settings.trusted_proxies)),
            sorted({rpc.descriptor.containing_service.full_name for rpc in rpcs}),
            settings.grpc_address,
            tls,
            settings.request_bytes_max,
            settings.concurrent_requests_max + settings.concurrent_transfers_max + settings.concurrent_watchers_max,
        )
        self._health = Health()
        self._health_server, self.health_address = open_health_server(self._health, settings.health_address)
        self._background: list[asyncio.Task[None]] = []
        self._is_stopping = asyncio.Event()

    @property
    def rest_address(self) -> str:
        """HOST:PORT of REST, with the actual port."""
        return self._rest.address

    @property
    def grpc_address(self) -> str:
        """HOST:PORT of gRPC, with the actual port."""
        return self._grpc.address

    async def start(self) -> None:
        """Waits for PostgreSQL, then starts serving. Both servers accept requests when it returns."""
        self._loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="gateway"))
        await asyncio.to_thread(self._postgres.open)
        await asyncio.to_thread(self._postgres.migrate_or_check, "vesta_gateway", self._settings)
        if self._tail is not None:
            self._tail.start()
        self._watch.start()
        self._health.set(READY, serving=True)
        if self._health_server is not None:
            self._health_server.start()
        await self._grpc.set_healthy(healthy=True)
        await self._rest.start()
        await self._grpc.start()
        self._background = [
            asyncio.create_task(update_health(self._dependencies, self._health, self._grpc, self._problem_count)),
            asyncio.create_task(prune(self._postgres, self._clock, self._settings, self._is_stopping)),
            asyncio.create_task(follow_projects(self._projects)),
        ]

    async def drain(self) -> None:
        """Reports NOT_SERVING, so that clients use other replicas. Incoming requests are still served."""
        self._dependencies.drain()
        self._health.drain()
        self._rest.drain()
        await self._grpc.drain()

    async def stop(self) -> None:
        """Ends event streams, rejects new calls, waits some seconds for running calls, then closes all resources."""
        self.watchers.close()
        self._is_stopping.set()
        self._watch.stop()
        for task in self._background:
            task.cancel()
        await asyncio.gather(self._rest.stop(), self._grpc.stop(STOP_GRACE))
        await self._audit.close()
        if self._tail is not None:
            await asyncio.to_thread(self._tail.stop, timedelta(seconds=2))
        for remote in self._remotes.values():
            await remote.close()
        if self._health_server is not None:
            self._health_server.stop(None)
        self._health.close()
        await asyncio.to_thread(self._postgres.close)

    def _new_tail(self) -> Tail:
        kafka = KafkaOptions.of(self._settings)
        return Tail(kafka, self._post, self.watchers.is_watched)

    def _new_replay(self) -> Replay | None:
        if self._tail is None:
            return None
        return Replay(KafkaOptions.of(self._settings), new_consumer, self._tail.end_offsets, to_project_event)

    def _new_calls(self) -> CallPipeline:
        """Creates the call pipeline, with the gateway's own services among the backends."""
        authenticator = Authenticator(
            lambda digest: api_keys.find_caller(self._postgres, digest, self._clock),
            bytes.fromhex(self._settings.owner_key_sha256),
            self._settings.key_cache,
            self._clock,
            time.monotonic,
        )
        projects = self._projects = Projects(
            lambda project: members.add_first_owner(self._postgres, project, self._clock),
            lambda project: members.has_members(self._postgres, project),
            lambda project: members.close_project(self._postgres, project, self._clock),
            lambda: members.closed_projects(self._postgres),
            lambda: members.projects_with_members(self._postgres),
            authenticator.invalidate,
            self._remotes["conductor"],
            self._loop,
        )

        def invalidate() -> None:
            asyncio.run_coroutine_threadsafe(_in_loop(authenticator.invalidate), self._loop).result()

        own = LocalBackend(
            [
                MemberApi(self._postgres, self._clock, invalidate, projects.ensure),
                ApiKeyApi(self._postgres, self._clock, invalidate, projects.ensure),
                EventApi(self.watchers, self._new_replay(), self._clock),
                AuditApi(self._postgres),
            ]
        )
        backends: dict[str, Backend] = {**self._remotes, "gateway": own}
        return CallPipeline(backends, authenticator, projects, self.limits, AuditLog(self._audit, self._clock))

    def _post(self, project: str, event: ProjectEvent) -> None:
        """Passes an event from the tail's thread to the event loop, unless the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(self.watchers.publish, project, event)
        except RuntimeError:
            log.debug("event_ignored")


async def _in_loop(function: Callable[[], None]) -> None:
    function()


def _checks(settings: Settings, identity: Identity) -> dict[str, EngineCheck]:
    """Returns the checks of the gateway's dependencies. The gateway reads the topics of all services."""
    topics = {topic for owned in OWNED.values() for topic in owned}
    return {
        **engine_checks_of("gateway", settings, topics, has_objects=False),
        **self_checks_of(settings, lambda: identity.credentials.certificate),
    }


def _limits(given: Settings) -> Limits:
    clock = time.monotonic
    return Limits(
        requests=TokenBuckets("requests", given.requests_per_second, given.requests_burst, clock),
        unauthenticated=TokenBuckets(
            "unauthenticated requests",
            given.unauthenticated_requests_per_second,
            given.unauthenticated_requests_burst,
            clock,
        ),
        calls=Slots("calls", given.concurrent_requests_max, given.concurrent_requests_per_key_max),
        transfers=Slots(
            "uploads and downloads", given.concurrent_transfers_max, given.concurrent_transfers_per_key_max
        ),
        watchers=Slots("watchers", given.concurrent_watchers_max, given.concurrent_watchers_per_key_max),
        throttle=Throttle(clock, random.random),
        timeout=given.call_timeout,
        recheck=given.key_cache,
    )


def _body_limits(given: Settings) -> BodyLimits:
    budget = ByteBudget(given.buffered_bytes_max)
    return BodyLimits(given.request_bytes_max, given.upload_bytes_max, given.body_idle_timeout, budget)


def _registry(limits: Limits, watchers: Watchers) -> CollectorRegistry:
    """Creates the metrics registry with process metrics and gauges of active calls."""
    registry = CollectorRegistry()
    for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR):
        registry.register(collector)
    calls = Gauge("vesta_gateway_calls_active", "Unary calls in progress", registry=registry)
    calls.set_function(lambda: limits.calls.total)
    streams = Gauge("vesta_gateway_streams_active", "Streaming calls in progress", registry=registry)
    streams.set_function(lambda: limits.transfers.total + limits.watchers.total)
    watching = Gauge("vesta_gateway_watchers_active", "Active event streams", registry=registry)
    watching.set_function(lambda: watchers.count)
    return registry

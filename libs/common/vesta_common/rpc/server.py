"""A gRPC server with health service, authentication of callers, metrics, admission control, and graceful shutdown."""

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from prometheus_client import CollectorRegistry

from vesta_common.identity import Identity
from vesta_common.identity.transport import server_credentials
from vesta_common.metrics import RpcMetrics
from vesta_common.rpc.admission import Admission, AdmissionMetrics
from vesta_common.rpc.health import READY, Health
from vesta_common.rpc.interceptors import RpcInterceptor

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
LIVE = "live"
"""Health name for liveness. It does not depend on engines."""
THREADS = 32
RPCS_MAX = 256
"""Maximum number of running and queued RPCs. Further RPCs are rejected."""
QUEUE_WAIT_MAX = timedelta(seconds=1)
"""Maximum estimated wait of an RPC for a thread. RPCs that would wait longer are rejected."""
SIDE_THREADS = 2
STREAMS_MAX = 256
KEEPALIVE_INTERVAL = timedelta(seconds=30)
KEEPALIVE_TIMEOUT = timedelta(seconds=10)
CONNECTION_AGE_MAX = timedelta(minutes=2)
"""Age at which connections are closed. Clients then reconnect and resolve the name again, so that new replicas receive calls."""
CONNECTION_AGE_GRACE = timedelta(hours=1)
"""How long active calls, such as uploads and watches, may continue on a connection that is being closed."""
STOP_GRACE = timedelta(seconds=5)
ACCEPTING_CALLS = "calls"
"""Health name that client channels watch: SERVING from start until the process stops, independent of readiness."""


def connection_age_options(age_max: timedelta = CONNECTION_AGE_MAX) -> list[tuple[str, int]]:
    """Returns server options that close connections gracefully after `age_max`. gRPC adds a jitter of 10 %."""
    return [
        ("grpc.max_connection_age_ms", int(age_max.total_seconds() * 1000)),
        ("grpc.max_connection_age_grace_ms", int(CONNECTION_AGE_GRACE.total_seconds() * 1000)),
    ]


@dataclass(frozen=True)
class Registration:
    """A gRPC service: its full name, its servicer, and the generated function that adds it to a server."""

    full_name: str
    servicer: Any
    add_to_server: Callable[[Any, grpc.Server], None]


def registration(servicer: Any) -> Registration:
    """Returns the registration of a servicer, found by its generated base class.

    Raises:
        TypeError: the servicer has no generated base class.
    """
    import sys

    for base in type(servicer).__mro__:
        module = sys.modules[base.__module__]
        add = getattr(module, f"add_{base.__name__}_to_server", None)
        if base is not type(servicer) and add is not None:
            package = ".".join(["vesta", *base.__module__.split(".")[1:-1]])
            return Registration(f"{package}.{base.__name__.removesuffix('Servicer')}", servicer, add)
    raise TypeError(f"{type(servicer).__name__} is not derived from a generated Servicer")


class Server:
    """A gRPC server on one address.

    Args:
        identity: the service's identity; verifies callers.
        address: HOST:PORT. Port 0 selects a free port; the attribute `address` has the actual one.
        rpcs_max: maximum number of running and queued RPCs. Further RPCs are rejected with OVERLOADED.
        queue_wait_max: maximum estimated wait of an RPC for a thread. RPCs that would wait longer are rejected with OVERLOADED.
        threads: maximum number of concurrent RPCs.
        admission_metrics: metrics shared with other queues of the service, if given.
        connection_age_max: age at which connections are closed, so that clients reconnect.
        health_address: HOST:PORT of a plaintext server with the health service only; empty for none.
        outlined: methods whose requests are read as outlines (`vesta_common.rpc.outline`).
    """

    def __init__(
        self,
        identity: Identity,
        address: str,
        servicers: Sequence[Any],
        registry: CollectorRegistry | None = None,
        *,
        rpcs_max: int = RPCS_MAX,
        queue_wait_max: timedelta = QUEUE_WAIT_MAX,
        threads: int = THREADS,
        admission_metrics: AdmissionMetrics | None = None,
        connection_age_max: timedelta = CONNECTION_AGE_MAX,
        health_address: str = "",
        outlined: Collection[str] = (),
    ) -> None:
        options = [
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_concurrent_streams", STREAMS_MAX),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", int(KEEPALIVE_INTERVAL.total_seconds() * 1000)),
            ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT.total_seconds() * 1000)),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            ("grpc.so_reuseport", 0),
            *connection_age_options(connection_age_max),
        ]
        registry = registry or CollectorRegistry()
        metrics, admission_metrics = (
            RpcMetrics(identity.service, registry),
            admission_metrics or AdmissionMetrics(identity.service, registry),
        )
        admission = Admission("rpc", queue_wait_max, threads, rpcs_max, time.monotonic, admission_metrics)
        pool = _CountingPool(threads, "rpc", admission)
        self._side_pool = ThreadPoolExecutor(SIDE_THREADS, thread_name_prefix="rpc-side")
        self._server = grpc.server(
            pool,
            interceptors=[RpcInterceptor(identity, metrics, admission, admission_metrics, self._side_pool, outlined)],
            options=options,
        )
        self._health = Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        registrations = [registration(servicer) for servicer in servicers]
        for entry in registrations:
            entry.add_to_server(entry.servicer, self._server)
        self._names = ["", READY, *(entry.full_name for entry in registrations)]
        host = address.rpartition(":")[0]
        port = (
            self._server.add_secure_port(address, server_credentials(identity))
            if identity.has_tls
            else self._server.add_insecure_port(address)
        )
        self.address = f"{host}:{port}"
        self._health_server, self.health_address = open_health_server(self._health, health_address)
        self._reported: tuple[bool, tuple[str, ...]] | None = None
        self.set_healthy(healthy=False)

    def start(self) -> None:
        """Starts serving."""
        self._server.start()
        if self._health_server:
            self._health_server.start()
        self._health.set(ACCEPTING_CALLS, serving=True)

    def set_healthy(self, *, healthy: bool, problems: Sequence[str] = ()) -> None:
        """Sets liveness (health name `live`) and readiness (all other names). Problems affect readiness only.

        Args:
            healthy: whether every component works. A component that does not work needs a restart.
            problems: other conditions that make the service unready, such as an unreachable engine.
        """
        if (healthy, tuple(problems)) == self._reported:  # usual, and the statuses are reported several times a second
            return
        self._reported = (healthy, tuple(problems))
        self._health.set_problems(problems)
        self._health.set(LIVE, serving=healthy)
        for name in self._names:
            self._health.set(name, serving=healthy and not problems)

    def drain(self) -> None:
        """Reports NOT_SERVING permanently, so that clients use other replicas. Incoming calls are still served."""
        self._health.drain()

    def stop(self, grace: timedelta = STOP_GRACE) -> None:
        """Rejects new calls, waits up to `grace` for running calls, then cancels them."""
        self.drain()
        self._server.stop(grace.total_seconds()).wait()
        if self._health_server:
            self._health_server.stop(None).wait()
        self._side_pool.shutdown(wait=False)
        self._health.close()


def open_health_server(health: Health, address: str) -> tuple[grpc.Server | None, str]:
    """Creates a server with the health service only. Returns it, not yet started, and its address; None without an address."""
    if not address:
        return None, ""
    server = grpc.server(ThreadPoolExecutor(1, thread_name_prefix="health-server"), options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    return server, f"{address.rpartition(':')[0]}:{server.add_insecure_port(address)}"


class _CountingPool(ThreadPoolExecutor):
    """A thread pool whose running and queued work is counted by an admission."""

    def __init__(self, threads: int, thread_name_prefix: str, admission: Admission) -> None:
        super().__init__(threads, thread_name_prefix)
        self._admission = admission

    def submit(self, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Submits work and counts it until it is done."""
        self._admission.enter()
        try:
            future = super().submit(*arguments, **keywords)
        except RuntimeError:  # the pool is shut down
            self._admission.leave()
            raise
        future.add_done_callback(lambda _: self._admission.leave())
        return future

"""A gRPC server with health, verified callers, metrics, a limit on what it takes in hand, and a graceful stop."""

import time
from collections.abc import Callable, Sequence
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
"""The health by which a process is restarted: it does not fall when an engine is away."""
THREADS = 32
RPCS_MAX = 256
"""Those running and those waiting for a thread; more are refused."""
QUEUE_WAIT_MAX = timedelta(seconds=1)
"""How long an RPC may wait for a thread, by the estimate; those that would wait longer are refused."""
SIDE_THREADS = 2
STREAMS_MAX = 256
KEEPALIVE_INTERVAL = timedelta(seconds=30)
KEEPALIVE_TIMEOUT = timedelta(seconds=10)
CONNECTION_AGE_MAX = timedelta(minutes=2)
"""Then a client is asked to connect anew, and resolves the name anew: so replicas that were added get calls."""
CONNECTION_AGE_GRACE = timedelta(hours=1)
"""How long calls, above all uploads and watchers, may go on over a connection that is to end."""
STOP_GRACE = timedelta(seconds=5)
TAKES_CALLS = "calls"
"""What the health of "calls" is asked by: SERVING from the start until the process is to stop, whatever else is not well."""


def connection_age_options(age_max: timedelta = CONNECTION_AGE_MAX) -> list[tuple[str, int]]:
    """A server's options that let its connections end, in peace, after `age_max`; gRPC varies that by a tenth."""
    return [
        ("grpc.max_connection_age_ms", int(age_max.total_seconds() * 1000)),
        ("grpc.max_connection_age_grace_ms", int(CONNECTION_AGE_GRACE.total_seconds() * 1000)),
    ]


@dataclass(frozen=True)
class Registration:
    """One gRPC service: its full name, its servicer, and the generated function that adds it to a server."""

    full_name: str
    servicer: Any
    add_to_server: Callable[[Any, grpc.Server], None]


def registration(servicer: Any) -> Registration:
    """The registration of a servicer, by the generated base it derives from.

    Raises:
        TypeError: it derives from none.
    """
    import sys

    for base in type(servicer).__mro__:
        module = sys.modules[base.__module__]
        add = getattr(module, f"add_{base.__name__}_to_server", None)
        if base is not type(servicer) and add is not None:
            package = ".".join(["vesta", *base.__module__.split(".")[1:-1]])
            return Registration(f"{package}.{base.__name__.removesuffix('Servicer')}", servicer, add)
    raise TypeError(f"{type(servicer).__name__} derives from no generated Servicer")


class Server:
    """Serves servicers on one address.

    Args:
        identity: the service's; it verifies who calls.
        address: HOST:PORT; port 0 picks a free one, see `address` after construction.
        rpcs_max: how many RPCs may run or wait for a thread at once; further ones are refused with OVERLOADED.
        queue_wait_max: how long an RPC may wait for a thread, by the estimate; those that would wait longer are refused likewise.
        threads: how many RPCs run at once.
        admission_metrics: shared with other queues of the service, if given.
        connection_age_max: after which clients are asked to connect anew.
        health_address: HOST:PORT where health alone is told, in plain text; nowhere if empty.
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
            interceptors=[RpcInterceptor(identity, metrics, admission, admission_metrics, self._side_pool)],
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
        self._health_server, self.health_address = health_door(self._health, health_address)
        self.set_healthy(healthy=False)

    def start(self) -> None:
        """Begins to answer."""
        self._server.start()
        if self._health_server:
            self._health_server.start()
        self._health.set(TAKES_CALLS, serving=True)

    def set_healthy(self, *, healthy: bool, problems: Sequence[str] = ()) -> None:
        """Sets liveness (the name `live`), and readiness (every other one), which falls with any problem too.

        Args:
            healthy: whether every component can do its work; only a restart mends one that cannot.
            problems: what else hinders the service, such as an engine that is away.
        """
        self._health.tell_problems(problems)
        self._health.set(LIVE, serving=healthy)
        for name in self._names:
            self._health.set(name, serving=healthy and not problems)

    def drain(self) -> None:
        """Says for good that it is not healthy and takes no calls, so that they go elsewhere; it still answers those that come."""
        self._health.drain()

    def stop(self, grace: timedelta = STOP_GRACE) -> None:
        """Refuses new calls, lets running ones finish within `grace`, then ends them."""
        self.drain()
        self._server.stop(grace.total_seconds()).wait()
        if self._health_server:
            self._health_server.stop(None).wait()
        self._side_pool.shutdown(wait=False)
        self._health.close()


def health_door(health: Health, address: str) -> tuple[grpc.Server | None, str]:
    """A server of health alone, to be started, and where it listens; none where there is no address."""
    if not address:
        return None, ""
    server = grpc.server(ThreadPoolExecutor(1, thread_name_prefix="health-door"), options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    return server, f"{address.rpartition(':')[0]}:{server.add_insecure_port(address)}"


class _CountingPool(ThreadPoolExecutor):
    """Threads whose work, running and waiting, is counted by an admission."""

    def __init__(self, threads: int, thread_name_prefix: str, admission: Admission) -> None:
        super().__init__(threads, thread_name_prefix)
        self._admission = admission

    def submit(self, *arguments: Any, **keywords: Any) -> Future[Any]:
        """As of every executor, counted until it is done."""
        self._admission.enter()
        try:
            future = super().submit(*arguments, **keywords)
        except RuntimeError:  # it is shut down
            self._admission.leave()
            raise
        future.add_done_callback(lambda _: self._admission.leave())
        return future

"""A gRPC server with health, reflection, metrics, a limit on what it takes in hand, and a graceful stop."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from vesta_common.interceptors import RpcInterceptor
from vesta_common.metrics import RpcMetrics

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
THREADS = 32
RPCS_MAX = 256
"""Those running and those waiting for a thread; more are refused."""
SIDE_THREADS = 2
STREAMS_MAX = 256
KEEPALIVE_INTERVAL = timedelta(seconds=30)
KEEPALIVE_TIMEOUT = timedelta(seconds=10)
STOP_GRACE = timedelta(seconds=5)


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
        service: the service's word, for metrics.
        address: HOST:PORT; port 0 picks a free one, see `address` after construction.
        rpcs_max: how many RPCs may run or wait for a thread at once; further ones are refused with OVERLOADED.
    """

    def __init__(
        self,
        service: str,
        address: str,
        servicers: Sequence[Any],
        registry: CollectorRegistry | None = None,
        *,
        rpcs_max: int = RPCS_MAX,
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
        ]
        metrics = RpcMetrics(service, registry or CollectorRegistry())
        pool = _CountingPool(THREADS, thread_name_prefix="rpc")
        self._side_pool = ThreadPoolExecutor(SIDE_THREADS, thread_name_prefix="rpc-side")
        self._server = grpc.server(
            pool,
            interceptors=[RpcInterceptor(metrics, lambda: pool.in_hand >= rpcs_max, self._side_pool)],
            options=options,
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        registrations = [registration(servicer) for servicer in servicers]
        for entry in registrations:
            entry.add_to_server(entry.servicer, self._server)
        self._names = ["", *(entry.full_name for entry in registrations)]
        reflection.enable_server_reflection(
            [*self._names[1:], health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )
        host = address.rpartition(":")[0]
        self.address = f"{host}:{self._server.add_insecure_port(address)}"
        self.set_healthy(healthy=False)

    def start(self) -> None:
        """Begins to answer."""
        self._server.start()

    def set_healthy(self, *, healthy: bool) -> None:
        """What health checks are told."""
        status = health_pb2.HealthCheckResponse.SERVING if healthy else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            self._health.set(name, status)

    def stop(self, grace: timedelta = STOP_GRACE) -> None:
        """Refuses new calls, lets running ones finish within `grace`, then ends them."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace.total_seconds()).wait()
        self._side_pool.shutdown(wait=False)


class _CountingPool(ThreadPoolExecutor):
    """Threads that know how much they have in hand, running and waiting."""

    def __init__(self, threads: int, thread_name_prefix: str) -> None:
        super().__init__(threads, thread_name_prefix)
        self._lock = threading.Lock()
        self.in_hand = 0

    def submit(self, *arguments: Any, **keywords: Any) -> Future[Any]:
        """As of every executor, counted until it is done."""
        future = super().submit(*arguments, **keywords)
        with self._lock:
            self.in_hand += 1
        future.add_done_callback(self._done)
        return future

    def _done(self, _: Future[Any]) -> None:
        with self._lock:
            self.in_hand -= 1

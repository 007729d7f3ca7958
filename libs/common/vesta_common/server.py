"""A gRPC server with health, reflection, metrics and a graceful stop."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
STREAMS_MAX = 256
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
    """

    def __init__(
        self, service: str, address: str, servicers: Sequence[Any], registry: CollectorRegistry | None = None
    ) -> None:
        options = [
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_concurrent_streams", STREAMS_MAX),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            ("grpc.so_reuseport", 0),
        ]
        metrics = RpcMetrics(service, registry or CollectorRegistry())
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, thread_name_prefix="rpc"),
            interceptors=[RpcInterceptor(metrics)],
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

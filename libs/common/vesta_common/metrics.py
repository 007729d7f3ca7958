"""Prometheus metrics that all services export. Names follow `vesta_<service>_<noun>_<unit>`."""

from prometheus_client import CollectorRegistry, Gauge, Histogram, start_http_server

RPC_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)


class RpcMetrics:
    """Durations of RPCs by method and status code."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            f"vesta_{service}_rpc_seconds",
            "Duration of RPCs",
            ("method", "code"),
            registry=registry,
            buckets=RPC_BUCKETS,
        )

    def observe(self, method: str, code: str, seconds: float) -> None:
        """Records the duration of an RPC."""
        self._seconds.labels(method, code).observe(seconds)


def problems_gauge(service: str, registry: CollectorRegistry) -> Gauge:
    """Returns a gauge for the number of problems that the service's health reports."""
    return Gauge(
        f"vesta_{service}_problems", "Current problems of the service, as in its health status", registry=registry
    )


def serve_metrics(address: str, registry: CollectorRegistry) -> str:
    """Serves `/metrics` on HOST:PORT from a background thread. Returns the address with the actual port, if the given port is 0."""
    host, _, port = address.rpartition(":")
    server, _ = start_http_server(int(port), host, registry)
    return f"{host}:{server.server_port}"

"""Prometheus metrics of the conductor."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class ConductorMetrics:
    """Metrics of the reconciliation of Loops."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.turn_seconds = Histogram(
            "vesta_conductor_turn_seconds", "Duration of one reconciliation of a Loop", registry=registry
        )
        self.commands = Counter(
            "vesta_conductor_commands_total", "Commands executed and recorded", ("action",), registry=registry
        )
        self.error_limit_exceeded = Counter(
            "vesta_conductor_error_limit_exceeded_total",
            "Reconciliations of a Loop that found more errors among accepted predictions than its policy allows",
            ("loop",),
            registry=registry,
        )
        self.queue_lag = Gauge(
            "vesta_conductor_queue_lag_seconds",
            "Delay of the last reconciliation of a Loop after its due time",
            registry=registry,
        )

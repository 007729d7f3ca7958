"""Prometheus metrics of a service's consumers: handled events, dead letters, lag."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class ConsumerMetrics:
    """Metrics of a service's consumers, labelled by consumer name."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        labels = ("consumer",)
        self.handled = Counter(f"vesta_{service}_events_handled_total", "Events handled", labels, registry=registry)
        self.dead = Counter(
            f"vesta_{service}_events_dead_total", "Events published to the dead-letter topic", labels, registry=registry
        )
        self.waiting = Gauge(
            f"vesta_{service}_events_waiting",
            "Unread records in the partitions of this replica",
            labels,
            registry=registry,
        )
        self.age = Gauge(
            f"vesta_{service}_event_age_seconds", "Lag: age of the last event handled", labels, registry=registry
        )

"""Prometheus metrics of a service's consumers: handled events, dead letters, lag."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class ConsumerMetrics:
    """Metrics of a service's consumers, labelled by consumer name."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        labels = ("consumer",)
        self.handled = Counter(
            f"vesta_{service}_events_handled_total", "Events that had their effect", labels, registry=registry
        )
        self.dead = Counter(
            f"vesta_{service}_events_dead_total", "Events set aside as dead letters", labels, registry=registry
        )
        self.waiting = Gauge(
            f"vesta_{service}_events_waiting",
            "Records of this replica's partitions that the broker has and that were not read yet",
            labels,
            registry=registry,
        )
        self.age = Gauge(
            f"vesta_{service}_event_age_seconds", "Age of the last event handled: the lag", labels, registry=registry
        )

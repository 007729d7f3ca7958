"""The catalogue of topics with their settings, read from `protos/topics/`, which is packaged as data of this package."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib import resources
from typing import Any

import yaml
from vesta_common.events.dead_letters import topic_of

DEAD_LETTER_PARTITIONS = 1
DEAD_LETTER_RETENTION = timedelta(days=30)
CLEANUP = "delete"
REPLICAS = 3
IN_SYNC_REPLICAS_MIN = 2
# A record also contains its key, its headers and the overhead of its batch: at most about 6 KB, see `vesta_common.events.cloudevents`.
OVERHEAD_BYTES = 64 * 1024
VALUE_BYTES_MIN = 1_000_000  # the outbox may contain events of the previous version, which had this limit


@dataclass(frozen=True)
class Topic:
    """A topic of the catalogue.

    Attributes:
        retention: of its records.
        value_bytes_max: the maximum size of a record's value.
        groups: the consumer groups that read it.
        cleanup: Kafka's `cleanup.policy`, such as `delete`.
        replicas: the number of replicas of each partition, limited by the number of brokers.
        in_sync_replicas_min: how many replicas must have a record before it is acknowledged.
    """

    name: str
    partitions: int
    retention: timedelta
    value_bytes_max: int
    groups: tuple[str, ...] = ()
    is_dead_letters: bool = False
    cleanup: str = CLEANUP
    replicas: int = REPLICAS
    in_sync_replicas_min: int = IN_SYNC_REPLICAS_MIN

    def replicas_of(self, brokers: int) -> int:
        """Returns the number of replicas on this many brokers."""
        return min(self.replicas, brokers)

    def configuration(self, replicas: int) -> dict[str, str]:
        """Returns the settings in Kafka's names, for this many replicas. One of several replicas may always be unavailable."""
        return {
            "retention.ms": str(int(self.retention.total_seconds() * 1000)),
            "max.message.bytes": str(self.value_bytes_max + OVERHEAD_BYTES),
            "cleanup.policy": self.cleanup,
            "min.insync.replicas": str(min(self.in_sync_replicas_min, max(1, replicas - 1))),
        }


@cache
def topics() -> tuple[Topic, ...]:
    """Returns all topics, including the dead-letter topic of each consuming service."""
    folder = resources.files("vesta_admin") / "topics"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    entries = [yaml.safe_load(file.read_text()) for file in files]
    return (*(_topic(entry) for entry in entries), *_dead_letters(entries))


def _topic(entry: dict[str, Any]) -> Topic:
    return Topic(
        name=entry["topic"],
        partitions=int(entry["partitions"]),
        retention=timedelta(days=int(entry["retention"])),
        value_bytes_max=_value_bytes_max(entry),
        groups=tuple(consumer["group"] for consumer in entry.get("consumers") or () if "group" in consumer),
        cleanup=entry["cleanup"],
        replicas=int(entry["replicas"]),
        in_sync_replicas_min=int(entry["in_sync_replicas_min"]),
    )


def _value_bytes_max(entry: dict[str, Any]) -> int:
    return max(int(entry["size_max_bytes"]), VALUE_BYTES_MIN)


def _dead_letters(entries: Sequence[dict[str, Any]]) -> Iterator[Topic]:
    """Yields one dead-letter topic per consuming service. Its records contain the largest record it can receive, and the reason."""
    bytes_max: dict[str, int] = {}
    for entry in entries:
        for consumer in entry.get("consumers") or ():
            service = consumer["service"]
            bytes_max[service] = max(bytes_max.get(service, 0), _value_bytes_max(entry) + OVERHEAD_BYTES)
    for service, value_bytes_max in sorted(bytes_max.items()):
        yield Topic(
            topic_of(service), DEAD_LETTER_PARTITIONS, DEAD_LETTER_RETENTION, value_bytes_max, is_dead_letters=True
        )

"""The topics of the platform with all their settings, read from the catalogue in `protos/topics/`, which is data of this package."""

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
# Beside the value a record has its key, its headers and the frame of its batch: at most some 6 KB by `vesta_common.events.cloudevents`.
OVERHEAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Topic:
    """One topic.

    Attributes:
        retention: how long its records are kept.
        value_bytes_max: the largest value of a record.
        groups: the consumer groups that read it.
        cleanup: what becomes of old records, in Kafka's words: `delete`.
        replicas: how many brokers keep each partition, where there are so many.
        in_sync_replicas_min: how many of them must have a record before it is acknowledged.
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
        """How many replicas it gets on so many brokers."""
        return min(self.replicas, brokers)

    def configuration(self, replicas: int) -> dict[str, str]:
        """Its settings in Kafka's words, where it has so many replicas: one of several may always be away."""
        return {
            "retention.ms": str(int(self.retention.total_seconds() * 1000)),
            "max.message.bytes": str(self.value_bytes_max + OVERHEAD_BYTES),
            "cleanup.policy": self.cleanup,
            "min.insync.replicas": str(min(self.in_sync_replicas_min, max(1, replicas - 1))),
        }


@cache
def topics() -> tuple[Topic, ...]:
    """Every topic, the dead letters of each consuming service included."""
    folder = resources.files("vesta_admin") / "topics"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    entries = [yaml.safe_load(file.read_text()) for file in files]
    return (*(_topic(entry) for entry in entries), *_dead_letters(entries))


def _topic(entry: dict[str, Any]) -> Topic:
    return Topic(
        name=entry["topic"],
        partitions=int(entry["partitions"]),
        retention=timedelta(days=int(entry["retention"])),
        value_bytes_max=int(entry["size_max_bytes"]),
        groups=tuple(consumer["group"] for consumer in entry.get("consumers") or () if "group" in consumer),
        cleanup=entry["cleanup"],
        replicas=int(entry["replicas"]),
        in_sync_replicas_min=int(entry["in_sync_replicas_min"]),
    )


def _dead_letters(entries: Sequence[dict[str, Any]]) -> Iterator[Topic]:
    """A topic a consuming service, for the largest record that it may have to set aside, with the reason in further headers."""
    bytes_max: dict[str, int] = {}
    for entry in entries:
        for consumer in entry.get("consumers") or ():
            service = consumer["service"]
            bytes_max[service] = max(bytes_max.get(service, 0), int(entry["size_max_bytes"]) + OVERHEAD_BYTES)
    for service, value_bytes_max in sorted(bytes_max.items()):
        yield Topic(
            topic_of(service), DEAD_LETTER_PARTITIONS, DEAD_LETTER_RETENTION, value_bytes_max, is_dead_letters=True
        )

"""The topics of the platform, read from the event catalogue."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from vesta_common.dead_letters import topic_of

CATALOGUE = Path(__file__).resolve().parents[3] / "protos" / "topics"
DEAD_LETTER_PARTITIONS = 1
DEAD_LETTER_RETENTION = timedelta(days=30)


@dataclass(frozen=True)
class Topic:
    """One topic.

    Attributes:
        retention: how long its records are kept.
        groups: the consumer groups that read it.
    """

    name: str
    partitions: int
    retention: timedelta
    groups: tuple[str, ...] = ()
    is_dead_letters: bool = False


@cache
def topics() -> tuple[Topic, ...]:
    """Every topic, the dead letters of each consuming service included."""
    entries = [yaml.safe_load(path.read_text()) for path in sorted(CATALOGUE.glob("*.yaml"))]
    consumers = [consumer for entry in entries for consumer in entry.get("consumers") or ()]
    return (
        *(_topic(entry) for entry in entries),
        *(
            Topic(topic_of(service), DEAD_LETTER_PARTITIONS, DEAD_LETTER_RETENTION, is_dead_letters=True)
            for service in sorted({consumer["service"] for consumer in consumers})
        ),
    )


def _topic(entry: dict[str, Any]) -> Topic:
    return Topic(
        name=entry["topic"],
        partitions=int(entry["partitions"]),
        retention=timedelta(days=int(entry["retention"])),
        groups=tuple(consumer["group"] for consumer in entry.get("consumers") or () if "group" in consumer),
    )


def partitions() -> dict[str, int]:
    """How many partitions each topic has."""
    return {topic.name: topic.partitions for topic in topics()}

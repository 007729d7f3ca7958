"""The topics of the platform, read from the event catalogue in `protos/topics/`, which is data of this package."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib import resources
from typing import Any

import yaml
from vesta_common.dead_letters import topic_of

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
    folder = resources.files("vesta_admin") / "topics"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    entries = [yaml.safe_load(file.read_text()) for file in files]
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

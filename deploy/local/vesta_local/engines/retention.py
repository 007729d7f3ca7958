"""Removes from the broker's log what is of no more use, which Tansu never does: each fetch looks through the whole of a partition.

A record goes when it is older than its topic's retention, or ten minutes old and behind every group that the catalogue names for its
topic. Dead letters wait for an operator, and so for the first alone. The newest record of a partition stays, whatever its age.
"""

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from vesta_admin.catalogue import Topic

from vesta_local.engines import embedded_kafka, objects
from vesta_local.home import Home
from vesta_local.program import Program

INTERVAL = timedelta(minutes=5)
KEPT_AT_LEAST = timedelta(minutes=10)
_KEYS_PER_REQUEST = 1000


@dataclass(frozen=True)
class Batch:
    """What was produced together: one object.

    Attributes:
        offset: of its first record.
        next_offset: of the first one after it.
    """

    key: str
    offset: int
    next_offset: int
    time: datetime


def program(home: Home) -> Program:
    """A shell that sleeps between two looks, and so takes no memory."""
    forget = shlex.join([sys.executable, "-m", "vesta_local", "--home", str(home.root), "forget"])
    return Program(
        name="retention",
        command=["/bin/sh", "-c", f"while sleep {INTERVAL.seconds}; do {forget}; done"],
        address="",
        is_healthy=lambda: True,  # it has no door, and what it fails to do now it does the next time
        directory=home.run,
    )


def forget(home: Home, topics: Sequence[Topic], now: datetime) -> int:
    """Removes what may go; answers how many records.

    Raises:
        KafkaError, BotoCoreError, ClientError: an engine does not answer; nothing is lost, and something left.
    """
    store = objects.client(home)
    delivered = _delivered(home, sorted({group for topic in topics for group in topic.groups}))
    count = 0
    for topic in topics:
        for number in range(topic.partitions):
            partition = TopicPartition(topic.name, number)
            passed = min((delivered.get((group, partition), 0) for group in topic.groups), default=None)
            due = [batch for batch in _batches(store, partition) if _is_due(batch, topic, passed, now)]
            for start in range(0, len(due), _KEYS_PER_REQUEST):
                keys = [{"Key": batch.key} for batch in due[start : start + _KEYS_PER_REQUEST]]
                store.delete_objects(Bucket=objects.EVENTS_BUCKET, Delete={"Objects": keys, "Quiet": True})
            count += sum(batch.next_offset - batch.offset for batch in due)
    return count


def _is_due(batch: Batch, topic: Topic, passed: int | None, now: datetime) -> bool:
    age = now - batch.time
    if age > topic.retention:
        return True
    is_read = passed is None or batch.next_offset <= passed
    return not topic.is_dead_letters and is_read and age > KEPT_AT_LEAST


def _batches(store: Any, partition: TopicPartition) -> list[Batch]:
    """All batches of a partition but the newest, in order."""
    found = sorted(_listed(store, partition))
    return [Batch(key, offset, following[0], time) for (offset, key, time), following in pairwise(found)]


def _listed(store: Any, partition: TopicPartition) -> Iterator[tuple[int, str, datetime]]:
    prefix = f"clusters/{embedded_kafka.CLUSTER}/topics/{partition.topic}/partitions/{partition.partition:010}/records/"
    for page in store.get_paginator("list_objects_v2").paginate(Bucket=objects.EVENTS_BUCKET, Prefix=prefix):
        for entry in page.get("Contents", ()):
            yield int(entry["Key"].removeprefix(prefix).partition(".")[0]), entry["Key"], entry["LastModified"]


def _delivered(home: Home, groups: Sequence[str]) -> dict[tuple[str, TopicPartition], int]:
    """The next offset of each group in each partition in which it has come to one."""
    admin = KafkaAdminClient(bootstrap_servers=home.address("events"), request_timeout_ms=5000)
    try:
        answers = admin.list_group_offsets(list(groups))
    finally:
        admin.close()
    return {
        (group, partition): found.offset
        for group, offsets in answers.items()
        for partition, found in offsets.items()
        if found.offset >= 0
    }

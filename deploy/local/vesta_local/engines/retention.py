"""Deletes old records from the embedded broker, because Tansu never deletes any and each fetch reads the whole partition.

Deletes records that are older than the retention of their topic, and records that are ten minutes old and that all consumer groups of the
topic have read. Only the retention applies to dead letters, which wait for an operator. The newest record of a partition always stays.
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
    """A batch of records, which is one object in the object store.

    Attributes:
        offset: of its first record.
        next_offset: of the first record after it.
    """

    key: str
    offset: int
    next_offset: int
    time: datetime


def program(home: Home) -> Program:
    """Returns a shell program that sleeps between runs, to use little memory."""
    forget = shlex.join([sys.executable, "-m", "vesta_local", "--home", str(home.root), "forget"])
    return Program(
        name="retention",
        command=["/bin/sh", "-c", f"while sleep {INTERVAL.seconds}; do {forget}; done"],
        address="",
        is_healthy=lambda: True,  # it has no health check; the next run retries what failed
        directory=home.run,
    )


def delete_old_records(home: Home, topics: Sequence[Topic], now: datetime) -> int:
    """Deletes records that are due; returns their number.

    Raises:
        KafkaError, BotoCoreError, ClientError: an engine does not respond. The next run deletes what is left.
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
    """Returns all batches of a partition except the newest, in order."""
    listed = sorted(_listed(store, partition))
    return [Batch(key, offset, following[0], time) for (offset, key, time), following in pairwise(listed)]


def _listed(store: Any, partition: TopicPartition) -> Iterator[tuple[int, str, datetime]]:
    prefix = f"clusters/{embedded_kafka.CLUSTER}/topics/{partition.topic}/partitions/{partition.partition:010}/records/"
    for page in store.get_paginator("list_objects_v2").paginate(Bucket=objects.EVENTS_BUCKET, Prefix=prefix):
        for entry in page.get("Contents", ()):
            yield int(entry["Key"].removeprefix(prefix).partition(".")[0]), entry["Key"], entry["LastModified"]


def _delivered(home: Home, groups: Sequence[str]) -> dict[tuple[str, TopicPartition], int]:
    """Returns the committed offset of each group in each partition, if there is one."""
    admin = KafkaAdminClient(bootstrap_servers=home.address("events"), request_timeout_ms=5000)
    try:
        answers = admin.list_group_offsets(list(groups))
    finally:
        admin.close()
    return {
        (group, partition): committed.offset
        for group, offsets in answers.items()
        for partition, committed in offsets.items()
        if committed.offset >= 0
    }

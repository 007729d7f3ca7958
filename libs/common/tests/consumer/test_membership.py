"""A member stays in its group while it is busy, commits the next offset now and then, and answers only what is its own."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from vesta_common.clock import ManualClock, SystemClock
from vesta_common.events.broker import Broker, open_producer
from vesta_common.events.consumer.delivery import Stopping
from vesta_common.events.consumer.membership import COMMIT_INTERVAL, PAUSED_POLL_INTERVAL, Membership
from vesta_common.events.consumer.options import KafkaOptions
from vesta_local.services import FETCH_WAIT_MS

TOPIC = "vesta.annotation.task.v1"
PATIENCE_SECONDS = 120.0  # rebalances take their time where a machine is busy
SESSION_TIMEOUT = timedelta(seconds=2)  # a group's first assignment takes half of it
RECORDS_MAX = 4


@pytest.fixture
def topic(kafka_broker: Broker, kafka_topic_prefix: str, create_topics: Callable[..., None]) -> Iterator["Topic"]:
    create_topics(TOPIC, partitions=2)
    topic = Topic(KafkaOptions(kafka_broker, kafka_topic_prefix, SESSION_TIMEOUT, FETCH_WAIT_MS))
    yield topic
    topic.producer.close(timeout=1)


class Topic:
    """A topic of two partitions, and one group on it."""

    def __init__(self, options: KafkaOptions) -> None:
        self.options = options
        self.producer = open_producer(options.broker)
        self.partitions = [TopicPartition(options.topic_prefix + TOPIC, number) for number in range(2)]

    def publish(self, partition: int, *values: bytes) -> None:
        for value in values:
            self.producer.send(self.options.topic_prefix + TOPIC, value=value, partition=partition).get(timeout=20)

    def committed(self) -> list[int | None]:
        """What the group's next member would read on from, by partition."""
        reader = KafkaConsumer(
            bootstrap_servers=self.options.broker.bootstrap,
            group_id=f"{self.options.topic_prefix}datasets.labels",
            enable_auto_commit=False,
        )
        try:
            return [reader.committed(partition) for partition in self.partitions]
        finally:
            reader.close()

    @contextmanager
    def member(self, clock: Any = None, stopping: threading.Event | None = None) -> Iterator[Membership]:
        membership = Membership(
            self.options, "datasets.labels", [TOPIC], RECORDS_MAX, clock or SystemClock(), stopping or threading.Event()
        )
        try:
            yield membership
        finally:
            membership.leave()


def take(member: Membership, count: int) -> dict[int, list[bytes]]:
    """So many values, by partition, each said to be delivered."""
    found: dict[int, list[bytes]] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while sum(map(len, found.values())) < count:
        assert time.monotonic() < deadline, f"only {found} came"
        polled = member.poll(100)
        assert sum(map(len, polled.values())) <= RECORDS_MAX
        for partition, records in polled.items():
            found.setdefault(partition.partition, []).extend(record.value for record in records)
            member.offsets.deliver(partition, records[-1].offset + 1)
    return found


@contextmanager
def joining(other: Membership) -> Iterator[None]:
    """Lets another member poll as its own service would, beside the one that is looked at."""
    done = threading.Event()

    def poll() -> None:
        while not done.is_set():
            other.poll(100)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def numbered(first: int, count: int) -> list[bytes]:
    return [str(number).encode() for number in range(first, first + count)]


def test_the_next_offset_is_committed_so_that_the_next_member_reads_on(topic: Topic) -> None:
    topic.publish(0, *numbered(0, 10))
    with topic.member() as member:
        assert take(member, 10) == {0: numbered(0, 10)}
    assert topic.committed()[0] == 10
    topic.publish(0, *numbered(10, 3))
    with topic.member() as member:
        assert take(member, 3) == {0: numbered(10, 3)}


def test_what_was_not_delivered_is_not_committed(topic: Topic) -> None:
    topic.publish(0, *numbered(0, 3))
    with topic.member() as member:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not member.poll(100):
            assert time.monotonic() < deadline
    with topic.member() as member:
        assert take(member, 3) == {0: numbered(0, 3)}


def test_a_member_knows_how_many_records_wait_for_it(topic: Topic) -> None:
    topic.publish(0, *numbered(0, 3 * RECORDS_MAX))
    with topic.member() as member:
        take(member, 1)
        assert 2 * RECORDS_MAX <= member.waiting() < 3 * RECORDS_MAX
        take(member, 2 * RECORDS_MAX)
        assert member.waiting() == 0


def test_commits_are_throttled_and_go_on_while_a_member_rests(topic: Topic) -> None:
    clock = ManualClock()
    topic.publish(0, *numbered(0, 2))
    with topic.member(clock) as member:
        take(member, 2)
        member.poll(0)
        assert member.offsets.uncommitted() == {topic.partitions[0]: 2}
        clock.advance(COMMIT_INTERVAL)
        member.wait(timedelta(0))
        assert member.offsets.uncommitted() == {}
        assert topic.committed()[0] == 2


def test_a_clock_that_is_set_back_holds_up_no_commit(topic: Topic) -> None:
    clock = ManualClock()
    topic.publish(0, *numbered(0, 2))
    with topic.member(clock) as member:
        take(member, 2)
        clock.advance(timedelta(hours=-1))
        member.poll(0)
        assert member.offsets.uncommitted() == {}


def test_nothing_comes_while_a_member_rests_and_nothing_is_left_out_afterwards(topic: Topic) -> None:
    topic.publish(0, *numbered(0, 2))
    with topic.member() as member:
        take(member, 2)
        topic.publish(0, *numbered(2, 20))
        topic.publish(1, *numbered(22, 20))
        member.wait(timedelta(milliseconds=500))
        assert take(member, 40) == {0: numbered(2, 20), 1: numbered(22, 20)}


def test_what_comes_with_a_rebalance_in_the_midst_of_a_rest_is_read_afterwards(topic: Topic) -> None:
    topic.publish(0, *numbered(0, 6))
    topic.publish(1, *numbered(6, 6))
    with topic.member() as member:
        member.wait(SESSION_TIMEOUT * 2)  # the first assignment falls into it
        assert take(member, 12) == {0: numbered(0, 6), 1: numbered(6, 6)}


def test_a_member_that_is_busy_with_one_record_after_another_lets_a_second_one_in(topic: Topic) -> None:
    for number in range(2):
        topic.publish(number, *numbered(0, 3))
    clock = ManualClock()
    with topic.member(clock) as busy:
        take(busy, 6)
        with topic.member() as other:
            with joining(other):
                deadline = time.monotonic() + PATIENCE_SECONDS
                while not any(map(busy.offsets.is_lost, topic.partitions)):
                    assert time.monotonic() < deadline
                    clock.advance(PAUSED_POLL_INTERVAL)
                    busy.poll_if_due()
            (lost,) = filter(busy.offsets.is_lost, topic.partitions)
            topic.publish(lost.partition, b"new")
            assert take(other, 1) == {lost.partition: [b"new"]}
            busy.offsets.deliver(lost, 99)
            assert lost not in busy.offsets.uncommitted()
    assert topic.committed() == [4 if number == lost.partition else 3 for number in range(2)]


def test_what_is_not_committed_of_a_partition_that_stays_is_committed_after_the_rebalance(topic: Topic) -> None:
    for number in range(2):
        topic.publish(number, *numbered(0, 3))
    clock = ManualClock()
    with topic.member(clock) as member:
        take(member, 6)  # by a clock that stands still, so that nothing is committed
        assert len(member.offsets.uncommitted()) == 2
        with topic.member() as other, joining(other):
            deadline = time.monotonic() + PATIENCE_SECONDS
            while len(member.offsets.uncommitted()) == 2:
                assert time.monotonic() < deadline
                member.wait(timedelta(0))
            clock.advance(COMMIT_INTERVAL)
            member.poll(0)
            assert member.offsets.uncommitted() == {}
            assert sorted(offset or 0 for offset in topic.committed()) == [0, 3]


def test_a_member_whose_handler_is_slow_stays_in_the_group(topic: Topic) -> None:
    with topic.member() as slow, topic.member() as other:
        topic.publish(0, b"0")
        topic.publish(1, b"1")
        deadline = time.monotonic() + PATIENCE_SECONDS
        polled: dict[TopicPartition, list[Any]] = {}
        taken: dict[TopicPartition, list[Any]] = {}
        while not (len(polled) == len(taken) == 1):  # one each
            assert time.monotonic() < deadline
            polled = polled or slow.poll(50)
            taken = taken or other.poll(50)
            if len(polled) == 2 or len(taken) == 2:  # the other one had not joined yet
                polled, taken = {}, {}
                topic.publish(0, b"0")
                topic.publish(1, b"1")
        (busy,), (own,) = polled, taken
        until = time.monotonic() + 3 * SESSION_TIMEOUT.total_seconds()
        while time.monotonic() < until:  # the slow one does not poll
            topic.publish(own.partition, b"more")
            assert list(take(other, 1)) == [own.partition]
        slow.offsets.deliver(busy, polled[busy][-1].offset + 1)
        slow.commit()
        assert slow.offsets.uncommitted() == {}


def test_a_group_whose_members_leave_at_once_takes_in_the_next(topic: Topic) -> None:
    with topic.member() as first, topic.member() as second:
        deadline = time.monotonic() + PATIENCE_SECONDS
        topic.publish(0, b"0")
        topic.publish(1, b"1")
        while not (first.poll(50) and second.poll(50)):  # both are in the group
            assert time.monotonic() < deadline
            topic.publish(0, b"0")
            topic.publish(1, b"1")
        first_leaves = threading.Thread(target=first.leave)
        first_leaves.start()
        second.leave()
        first_leaves.join()
    with topic.member() as third:
        assert take(third, 2)


def test_stopping_ends_a_rest_however_long(topic: Topic) -> None:
    stopping = threading.Event()
    with topic.member(stopping=stopping) as member:
        member.wait(timedelta(0))
        timer = threading.Timer(0.2, stopping.set)
        timer.start()
        with pytest.raises(Stopping):
            member.wait(timedelta(hours=1))
        with pytest.raises(Stopping):
            member.poll_if_due()
        timer.join()

"""Events from Kafka to those who watch: from now on, by project, over topics that come later too."""

import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import pytest
from kafka import TopicPartition
from kafka.errors import CorruptRecordError, KafkaError
from ulid import ULID
from vesta_common.errors import VestaError
from vesta_common.events.broker import Broker as Where
from vesta_common.events.broker import open_producer
from vesta_common.events.cloudevents import encode_headers, new_event
from vesta_common.events.consumer import KafkaOptions
from vesta_contracts.annotation.v1 import TaskAccepted
from vesta_contracts.gateway.v1 import EventServiceStub, ProjectEvent, WatchEventsRequest
from vesta_contracts.serving.v1 import PredictionCreated
from vesta_gateway.events.replay import Replay, time_of
from vesta_gateway.events.tail import Tail

TASKS, PREDICTIONS = "vesta.annotation.task.v1", "vesta.serving.prediction.v1"


@pytest.fixture
def send(kafka_broker, kafka_topic_prefix):
    """Publishes a message about a subject, as a service's relay would."""
    producer = open_producer(kafka_broker)

    def publish(payload, subject):
        event = new_event("test", subject, payload, datetime.now(UTC))
        topic = kafka_topic_prefix + event.topic
        value = payload.SerializeToString()
        producer.send(topic, value, key=subject.encode(), headers=encode_headers(event)).get(10)

    yield publish
    producer.close()


def watch(running, channel, key, *prefixes):
    request = WatchEventsRequest(parent="projects/acme", type_prefixes=prefixes)
    events = EventServiceStub(channel).WatchEvents(request, metadata=[("x-api-key", key)])
    running.until(lambda: running.gateway.watchers.count == 1)
    return events


def is_following(running):
    with running.rest() as client:
        return client.get("/healthz").json()["parts"]["events"] == "SERVING"


def test_only_new_events_of_the_project_are_sent(create_topics, send, start_gateway):
    create_topics(TASKS, PREDICTIONS, partitions=3)
    for number in range(40):
        send(TaskAccepted(item=f"old-{number}"), "projects/acme/campaigns/c/tasks/old")
    running = start_gateway()
    running.until(lambda: is_following(running), 30)
    key = running.member("acme", "viewer")
    with running.channel() as channel:
        events = watch(running, channel, key)
        send(TaskAccepted(item="foreign"), "projects/other/campaigns/c/tasks/t")
        send(PredictionCreated(deployment="unasked"), "projects/acme/deployments/d")
        for number in range(3):
            send(TaskAccepted(item=f"new-{number}"), "projects/acme/campaigns/c/tasks/t")
        found = [next(events) for _ in range(3)]
        events.cancel()

    items = []
    for event in found:
        accepted = TaskAccepted()
        assert event.payload.Unpack(accepted)
        items.append(accepted.item)
    assert items == ["new-0", "new-1", "new-2"]
    assert found[0].type == "vesta.annotation.task.v1.accepted"
    assert found[0].subject == "projects/acme/campaigns/c/tasks/t"
    assert abs(found[0].time.ToDatetime(UTC) - datetime.now(UTC)).total_seconds() < 30


def test_a_new_topic_is_followed_and_invalid_records_are_skipped(
    create_topics, send, start_gateway, kafka_broker, kafka_topic_prefix
):
    running = start_gateway()
    running.until(lambda: is_following(running), 30)
    key = running.member("acme", "viewer")
    with running.channel() as channel:
        events = watch(running, channel, key, "vesta.annotation.")
        create_topics(TASKS)
        producer = open_producer(kafka_broker)
        producer.send(kafka_topic_prefix + TASKS, b"rubbish", key=b"projects/acme/campaigns/c/tasks/t").get(10)
        producer.close()
        send(TaskAccepted(item="first"), "projects/acme/campaigns/c/tasks/t")
        event = next(events)
        events.cancel()

    accepted = TaskAccepted()
    event.payload.Unpack(accepted)
    assert accepted.item == "first"


def tasks_of(events, count):
    found = []
    for event in (next(events) for _ in range(count)):
        accepted = TaskAccepted()
        event.payload.Unpack(accepted)
        found.append(accepted.item)
    return found


def test_a_watcher_resumes_after_an_event_at_a_new_replica(create_topics, send, start_gateway):
    create_topics(TASKS, PREDICTIONS, partitions=3)
    first = start_gateway()
    first.until(lambda: is_following(first), 30)
    key = first.member("acme", "viewer")
    with first.channel() as channel:
        events = watch(first, channel, key)
        send(TaskAccepted(item="read"), "projects/acme/campaigns/c/tasks/1")
        last = next(events)
        events.cancel()
    for number in range(5):
        send(TaskAccepted(item=f"missed-{number}"), f"projects/acme/campaigns/c/tasks/{number}")
        send(TaskAccepted(item="foreign"), f"projects/other/campaigns/c/tasks/{number}")
        send(PredictionCreated(deployment="unasked"), "projects/acme/deployments/d")
    second = start_gateway()
    second.until(lambda: is_following(second), 30)
    with second.channel() as channel:
        request = WatchEventsRequest(parent="projects/acme", after_event_id=last.id)
        events = EventServiceStub(channel).WatchEvents(request, metadata=[("x-api-key", key)])
        assert set(tasks_of(events, 6)) == {"read", *(f"missed-{number}" for number in range(5))}
        send(TaskAccepted(item="later"), "projects/acme/campaigns/c/tasks/1")
        assert tasks_of(events, 1) == ["later"]
        events.cancel()
    headers = {"x-api-key": key, "last-event-id": last.id}
    with httpx.stream("GET", f"{second.url}/v1/projects/acme/events:watch", headers=headers, timeout=30) as answer:
        ids = []
        for line in answer.iter_lines():
            ids += [line.removeprefix("id: ")] if line.startswith("id: ") else []
            if len(ids) == 7:
                break
    assert ids == sorted(ids)
    assert last.id in ids


@pytest.mark.parametrize(
    ("event_id", "code", "reason"),
    [
        ("nonsense", "INVALID_ARGUMENT", "EVENT_ID_MALFORMED"),
        (
            str(ULID.from_datetime(datetime.now(UTC) - timedelta(hours=2))).lower(),
            "FAILED_PRECONDITION",
            "EVENTS_TOO_OLD",
        ),
    ],
    ids=["malformed", "too old"],
)
def test_an_event_id_that_cannot_be_resumed_is_rejected(event_id, code, reason):
    with pytest.raises(VestaError) as refused:
        time_of(event_id, datetime.now(UTC))
    assert (refused.value.code.name, refused.value.reason) == (code, reason)


class Log:
    """A consumer of one partition with some records, of which it polls one at a time; of none where it is stuck."""

    def __init__(self, count, *, is_stuck=False):
        self.left = (
            [] if is_stuck else [SimpleNamespace(key=b"projects/a/x/y", offset=offset) for offset in range(count)]
        )

    def offsets_for_times(self, times):
        return {partition: SimpleNamespace(offset=0, timestamp=0) for partition in times}

    def assign(self, partitions):
        pass

    def seek(self, partition, offset):
        pass

    def poll(self, timeout_ms):
        return {TopicPartition(TASKS, 0): [self.left.pop(0)]} if self.left else {}

    def close(self):
        pass


@pytest.mark.parametrize(
    ("log", "reason"), [(Log(3), "EVENTS_TOO_MANY"), (Log(2, is_stuck=True), "EVENTS_UNAVAILABLE"), (Log(2), "")]
)
def test_resuming_over_too_many_events_or_with_a_stuck_broker_is_rejected(log, reason):
    ends = {TopicPartition(TASKS, 0): len(log.left) or 2}
    replay = Replay(
        KafkaOptions(Where("-")),
        lambda _: log,
        lambda: ends,
        lambda record: ("projects/a", ProjectEvent(id=str(record.offset))),
        events_max=2,
        timeout=timedelta(milliseconds=200),
    )
    if not reason:
        assert [event.id for event in replay.read("projects/a", datetime.now(UTC))] == ["0", "1"]
        return
    with pytest.raises(VestaError) as refused:
        replay.read("projects/a", datetime.now(UTC))
    assert refused.value.reason == reason


class Broker:
    """A consumer of one partition, whose polls raise what they are told to, each once; a corrupt record lies at offset 7."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.position = 0
        self.assigned = set()

    def topics(self):
        return {TASKS}

    def partitions_for_topic(self, topic):
        return {0}

    def assignment(self):
        return self.assigned

    def assign(self, partitions):
        self.assigned = set(partitions)

    def seek(self, partition, offset):
        self.position = offset

    def highwater(self, partition):
        return None

    def end_offsets(self, partitions):
        return dict.fromkeys(partitions, 7)

    def poll(self, timeout_ms):
        if self.errors:
            raise self.errors.pop(0)
        if self.position == 7:
            raise CorruptRecordError
        return {}

    def close(self):
        pass


@pytest.mark.parametrize("error", [OSError("reset"), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), KafkaError()])
def test_the_tail_continues_after_errors_and_after_unreadable_records(error):
    broker, reached = Broker(error), threading.Event()

    def seek(partition, offset):
        broker.position = offset
        if offset == 8:
            reached.set()

    broker.seek = seek
    tail = Tail(
        KafkaOptions(Where("unused:1")),
        lambda project, event: None,
        lambda project: True,
        lambda kafka: broker,
        lambda broker, partition, offset: offset == 7,
    )
    tail.start()

    assert reached.wait(20)
    assert tail.healthy()
    tail.stop(timedelta(seconds=5))

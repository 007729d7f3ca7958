"""Invalid answers become dead letters with the reason. Their replay does not overwrite later annotations."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from datasets_builders import PROJECT, Datasets, a_medium, says
from kafka import KafkaProducer
from vesta_common.events import dead_letters
from vesta_common.events.broker import Broker, open_producer
from vesta_common.events.cloudevents import encode_headers, new_event
from vesta_common.events.consumer import Consumer, KafkaOptions
from vesta_contracts.annotation.v1 import TaskAccepted
from vesta_contracts.common.v1 import Annotation, PixelBox
from vesta_contracts.datasets.v1 import Concept, GetItemRequest, Taxonomy, UpdateTaxonomyRequest
from vesta_datasets.ingest.event_handlers import EventHandlers
from vesta_local.services import FETCH_WAIT_MS

TOPIC = "vesta.annotation.task.v1"
DEAD_TOPIC = "vesta.datasets.dead_letter.v1"
TASK = f"{PROJECT}/campaigns/vans/tasks"
PATIENCE = timedelta(seconds=60)


class Events:
    """The broker, and the consumer of accepted answers."""

    def __init__(self, datasets: Datasets, broker: Broker, prefix: str) -> None:
        self.options = KafkaOptions(broker, prefix, timedelta(seconds=2), FETCH_WAIT_MS)
        self.producer: KafkaProducer = open_producer(broker)
        handlers = EventHandlers(datasets.store).label_handlers()
        self.consumer = Consumer("datasets", "labels", handlers, datasets.store.postgres, self.options)

    def publish(self, item: str, task: str, accept_time: datetime, *annotations: Annotation) -> None:
        """Publishes an answer with this accept time."""
        accepted_task = TaskAccepted(task=f"{TASK}/{task}", item=item, annotations=annotations)
        accepted_task.accept_time.FromDatetime(accept_time)
        event = new_event("annotation", accepted_task.task, accepted_task, datetime.now(UTC))
        self.producer.send(
            self.options.topic_prefix + TOPIC,
            value=event.value,
            key=event.subject.encode(),
            headers=encode_headers(event),
        ).get(timeout=20)

    def letters(self) -> list[str]:
        """Returns the reasons of the dead letters."""
        letters = dead_letters.read(self.options.broker, self.options.topic_prefix + DEAD_TOPIC)
        return [letter.reason for letter in letters]

    def replay(self) -> int:
        """Replays the dead letters, and returns their number."""
        topic = self.options.topic_prefix + DEAD_TOPIC
        return dead_letters.replay(self.options.broker, topic, f"{topic}.replay").published


@pytest.fixture
def broker(
    datasets: Datasets, kafka_broker: Broker, kafka_topic_prefix: str, create_topics: Callable[..., None]
) -> Iterator[Events]:
    create_topics(TOPIC)
    create_topics(DEAD_TOPIC)
    broker = Events(datasets, kafka_broker, kafka_topic_prefix)
    broker.consumer.start()
    yield broker
    broker.consumer.stop(timedelta(seconds=10))
    broker.producer.close(timeout=1)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE.total_seconds()
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def concepts_of(datasets: Datasets, item: str) -> list[str]:
    return [one.concept for one in datasets.items.GetItem(GetItemRequest(name=item)).accepted.annotations]


def test_a_replayed_answer_is_stored_unless_a_newer_one_exists(datasets: Datasets, broker: Events) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    newer, lone = (one.name for one in datasets.add(datasets.a_dataset(), a_medium(1), a_medium(2)))
    for item, task in ((newer, "1"), (lone, "2")):
        broker.publish(item, task, noon, *says("bus"))  # the taxonomy does not have this concept
    broker.publish(newer, "3", noon + timedelta(seconds=1), *says("car"))
    wait_until(lambda: concepts_of(datasets, newer) == ["car"])
    wait_until(lambda: len(broker.letters()) == 2)
    assert {reason.partition(":")[0] for reason in broker.letters()} == {"CONCEPT_UNKNOWN"}
    concepts = [Concept(id=name) for name in ("van", "car", "bus")]
    taxonomy = Taxonomy(name=f"{PROJECT}/taxonomies/vehicles", concepts=concepts)
    datasets.taxonomies.UpdateTaxonomy(UpdateTaxonomyRequest(taxonomy=taxonomy))
    assert broker.replay() == 2
    broker.publish(
        lone, "0", noon - timedelta(seconds=1), *says("van")
    )  # in the same partition, so that it is handled after them
    wait_until(lambda: concepts_of(datasets, lone) == ["bus"])
    with datasets.store.postgres.transaction() as connection:
        wait_until(lambda: connection.execute("SELECT count(*) AS n FROM inbox").fetchone()["n"] == 4)  # type: ignore[index]
    assert (concepts_of(datasets, newer), concepts_of(datasets, lone)) == (["car"], ["bus"])
    assert len(broker.letters()) == 2


def test_an_older_answer_with_an_invalid_shape_becomes_a_dead_letter_and_others_are_handled(
    datasets: Datasets, broker: Events
) -> None:
    now = datetime.now(UTC)
    wrong, right = (one.name for one in datasets.add(datasets.a_dataset(), a_medium(1), a_medium(2)))
    broker.publish(wrong, "1", now, Annotation(concept="van", box=PixelBox(x_max_px=999, y_max_px=9)))
    broker.publish(right, "2", now, *says("van"))
    wait_until(lambda: concepts_of(datasets, right) == ["van"])
    wait_until(lambda: len(broker.letters()) == 1)
    assert broker.letters() == [
        "SHAPE_OUTSIDE_IMAGE: annotations[0] is not within the image of 64 x 48 pixels; clip it to the image, or leave it out",
    ]
    assert not datasets.items.GetItem(GetItemRequest(name=wrong)).HasField("accepted")

"""Makes topics on a broker as the catalogue has them, and brings those that are there up to it. It can be done again at any time."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    IncompatibleBrokerVersion,
    InvalidPartitionsError,
    KafkaError,
    NoError,
    TopicAlreadyExistsError,
    for_code,
)
from vesta_common.events.broker import Broker
from vesta_common.settings import EngineSettings

from vesta_admin.catalogue import Topic

REQUEST_TIMEOUT_MS = 5000


@dataclass(frozen=True)
class Done:
    """What was done.

    Attributes:
        made: names of topics that were not there.
        altered: names of those that were, and have the catalogue's settings now.
        extended: names of those of them that have more partitions than before.
    """

    made: tuple[str, ...]
    altered: tuple[str, ...]
    extended: tuple[str, ...]


def create_topics(settings: EngineSettings, topics: Sequence[Topic]) -> list[str]:
    """Puts the topics on the broker under the settings' prefix; returns the names of those that were made.

    Raises:
        KafkaError: as `put_topics`.
    """
    access = Broker.of(settings).access
    with closing(KafkaAdminClient(**access, request_timeout_ms=REQUEST_TIMEOUT_MS, client_id="vesta-admin")) as admin:
        prefixed = [replace(topic, name=settings.kafka_topic_prefix + topic.name) for topic in topics]
        return list(put_topics(admin, prefixed).made)


def put_topics(admin: KafkaAdminClient, topics: Sequence[Topic]) -> Done:
    """Makes the topics that are not there, and gives the others the catalogue's settings and at least its partitions.

    Partitions are never taken away, and replicas of a topic that is there stay as they are: moving them is an operator's decision.
    A broker that knows no such settings, as the embedded one, ignores them.

    Raises:
        KafkaError: the broker does not answer, or refuses; what was done stays, and doing it again goes on from there.
    """
    brokers = len(admin.describe_cluster()["brokers"])
    there = set(admin.list_topics())
    made = _make(admin, [topic for topic in topics if topic.name not in there], brokers)
    existing = [topic for topic in topics if topic.name not in made]
    if not existing:
        return Done(made, (), ())
    partitions = {
        found["name"]: [len(partition["replica_nodes"]) for partition in found["partitions"]]
        for found in admin.describe_topics([topic.name for topic in existing])
    }
    _alter(admin, {topic.name: topic.configuration(min(partitions[topic.name], default=1)) for topic in existing})
    extended = _extend(
        admin, {topic.name: topic.partitions for topic in existing if topic.partitions > len(partitions[topic.name])}
    )
    return Done(made, tuple(topic.name for topic in existing), extended)


def _make(admin: KafkaAdminClient, topics: Sequence[Topic], brokers: int) -> tuple[str, ...]:
    """Makes topics, and waits until clients can use them; answers which of them nobody else made meanwhile."""
    if not topics:
        return ()
    wanted = {
        topic.name: {
            "num_partitions": topic.partitions,
            "replication_factor": topic.replicas_of(brokers),
            "configs": topic.configuration(topic.replicas_of(brokers)),
        }
        for topic in topics
    }
    made = []
    for answer in admin.create_topics(wanted, raise_errors=False)["topics"]:
        error = for_code(answer["error_code"])
        if error is NoError:
            made.append(answer["name"])
        elif error is not TopicAlreadyExistsError:
            raise error(f"the topic {answer['name']} cannot be made: {answer['error_message']}")
    admin.wait_for_topics(list(wanted))
    return tuple(made)


def _alter(admin: KafkaAdminClient, configurations: dict[str, dict[str, str]]) -> None:
    resources = [
        ConfigResource(ConfigResourceType.TOPIC, name, configs=dict(configuration))
        for name, configuration in configurations.items()
    ]
    answers = admin.alter_configs(resources, raise_on_unknown=False)["topic"]
    refused = [f"{name}: {answer}" for name, answer in answers.items() if answer != "OK"]
    if refused:
        raise KafkaError(f"topics do not get their settings: {'; '.join(refused)}")


def _extend(admin: KafkaAdminClient, partitions: dict[str, int]) -> tuple[str, ...]:
    if not partitions:
        return ()
    try:
        admin.create_partitions(partitions)
    except IncompatibleBrokerVersion:
        return ()  # the embedded broker keeps the partitions that it was given first
    except InvalidPartitionsError:
        return ()  # another set-up was faster: they are never fewer than asked for
    return tuple(partitions)

"""Creates the topics of the catalogue on a broker, and updates existing ones. Idempotent."""

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
class TopicChanges:
    """The result of `put_topics`.

    Attributes:
        created: names of the created topics.
        altered: names of the existing topics, which now have the catalogue's settings.
        extended: names of those existing topics that got more partitions.
    """

    created: tuple[str, ...]
    altered: tuple[str, ...]
    extended: tuple[str, ...]


def create_topics(settings: EngineSettings, topics: Sequence[Topic]) -> list[str]:
    """Creates or updates the topics under the settings' prefix; returns the names of those created.

    Raises:
        KafkaError: see `put_topics`.
    """
    access = Broker.of(settings).access
    with closing(KafkaAdminClient(**access, request_timeout_ms=REQUEST_TIMEOUT_MS, client_id="vesta-admin")) as admin:
        prefixed = [replace(topic, name=settings.kafka_topic_prefix + topic.name) for topic in topics]
        return list(put_topics(admin, prefixed).created)


def put_topics(admin: KafkaAdminClient, topics: Sequence[Topic]) -> TopicChanges:
    """Creates missing topics, and gives existing ones the catalogue's settings and at least its number of partitions.

    Never removes partitions, and does not change the replicas of existing topics: moving replicas is an operator's decision.
    Brokers without such settings, such as the embedded one, ignore them.

    Raises:
        KafkaError: the broker does not respond, or rejects the change. What was done remains, and a retry continues.
    """
    brokers = len(admin.describe_cluster()["brokers"])
    existing_names = set(admin.list_topics())
    created = _create(admin, [topic for topic in topics if topic.name not in existing_names], brokers)
    existing = [topic for topic in topics if topic.name not in created]
    if not existing:
        return TopicChanges(created, (), ())
    partitions = {
        description["name"]: [len(partition["replica_nodes"]) for partition in description["partitions"]]
        for description in admin.describe_topics([topic.name for topic in existing])
    }
    _alter(admin, {topic.name: topic.configuration(min(partitions[topic.name], default=1)) for topic in existing})
    extended = _extend(
        admin, {topic.name: topic.partitions for topic in existing if topic.partitions > len(partitions[topic.name])}
    )
    return TopicChanges(created, tuple(topic.name for topic in existing), extended)


def _create(admin: KafkaAdminClient, topics: Sequence[Topic], brokers: int) -> tuple[str, ...]:
    """Creates topics and waits until clients can use them; returns those that no other process created meanwhile."""
    if not topics:
        return ()
    specifications = {
        topic.name: {
            "num_partitions": topic.partitions,
            "replication_factor": topic.replicas_of(brokers),
            "configs": topic.configuration(topic.replicas_of(brokers)),
        }
        for topic in topics
    }
    created = []
    for answer in admin.create_topics(specifications, raise_errors=False)["topics"]:
        error = for_code(answer["error_code"])
        if error is NoError:
            created.append(answer["name"])
        elif error is not TopicAlreadyExistsError:
            raise error(f"the topic {answer['name']} cannot be created: {answer['error_message']}")
    admin.wait_for_topics(list(specifications))
    return tuple(created)


def _alter(admin: KafkaAdminClient, configurations: dict[str, dict[str, str]]) -> None:
    resources = [
        ConfigResource(ConfigResourceType.TOPIC, name, configs=dict(configuration))
        for name, configuration in configurations.items()
    ]
    answers = admin.alter_configs(resources, raise_on_unknown=False)["topic"]
    rejected = [f"{name}: {answer}" for name, answer in answers.items() if answer != "OK"]
    if rejected:
        raise KafkaError(f"the settings of topics cannot be updated: {'; '.join(rejected)}")


def _extend(admin: KafkaAdminClient, partitions: dict[str, int]) -> tuple[str, ...]:
    if not partitions:
        return ()
    try:
        admin.create_partitions(partitions)
    except IncompatibleBrokerVersion:
        return ()  # the embedded broker cannot change the number of partitions
    except InvalidPartitionsError:
        return ()  # another process has extended the topic meanwhile; there are never fewer partitions than requested
    return tuple(partitions)

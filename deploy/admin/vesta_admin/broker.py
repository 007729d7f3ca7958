"""Creates topics on the broker."""

from collections.abc import Iterable

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError
from vesta_common.broker import CONNECTION
from vesta_common.settings import EngineSettings

from vesta_admin.catalogue import Topic

REQUEST_TIMEOUT_MS = 5000


def create_topics(settings: EngineSettings, topics: Iterable[Topic]) -> list[str]:
    """Creates the topics that do not exist, under the settings' prefix; returns their names.

    Raises:
        KafkaError: the broker does not answer, or refuses.
    """
    admin = KafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        client_id="vesta-admin",
        **CONNECTION,
    )
    created = []
    try:
        existing = set(admin.list_topics())
        for topic in topics:
            name = settings.kafka_topic_prefix + topic.name
            if name in existing:
                continue
            try:
                admin.create_topics([NewTopic(name, topic.partitions, 1)])
            except TopicAlreadyExistsError:
                continue  # somebody else was faster
            created.append(name)
    finally:
        admin.close()
    return created

"""How a service tries its engines, each on a new connection: the database, the topics it reads, the object store."""

from collections.abc import Collection

import psycopg
from kafka import KafkaAdminClient

from vesta_common.broker import Broker
from vesta_common.engine_watch import KAFKA, OBJECTS, POSTGRES, MissingTopicsError, Try
from vesta_common.postgres import CONNECT_TIMEOUT, address_of
from vesta_common.settings import EngineSettings

_REQUEST_TIMEOUT_MS = 5000


def tries_of(service: str, settings: EngineSettings, topics: Collection[str], *, has_objects: bool) -> dict[str, Try]:
    """What a service needs: its database, the topics it reads, and the object store where it has one."""
    found: dict[str, Try] = {POSTGRES: lambda: _try_postgres(settings)}
    if has_objects:
        from vesta_common.objects import ObjectStore  # boto3 is for those alone that have objects

        store = ObjectStore.of(settings, attempts_max=1)
        found[OBJECTS] = lambda: store.check(f".health/{service}")
    if settings.kafka_bootstrap:
        names = {settings.kafka_topic_prefix + topic for topic in topics}
        found[KAFKA] = lambda: _try_kafka(settings, names)
    return found


def _try_postgres(settings: EngineSettings) -> None:
    with psycopg.connect(address_of(settings), connect_timeout=int(CONNECT_TIMEOUT.total_seconds())) as connection:
        connection.execute("SET LOCAL statement_timeout = '5s'")
        connection.execute("SELECT 1")


def _try_kafka(settings: EngineSettings, topics: set[str]) -> None:
    client = KafkaAdminClient(**Broker.of(settings).connection, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        missing = topics - set(client.list_topics())
    finally:
        client.close()
    if missing:
        raise MissingTopicsError(f"lacks topics: {', '.join(sorted(missing))}")

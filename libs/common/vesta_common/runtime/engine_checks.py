"""Checks of the engines that a service uses, each on a new connection: PostgreSQL, Kafka topics, the object store."""

from collections.abc import Collection

import psycopg
from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from psycopg.conninfo import conninfo_to_dict
from vesta_contracts.topics import OWNED

from vesta_common.events.broker import Broker
from vesta_common.runtime.engine_watch import KAFKA, OBJECTS, POSTGRES, EngineCheck, ExplainedError
from vesta_common.runtime.tls_faults import tls_failure
from vesta_common.settings import EngineSettings
from vesta_common.storage.postgres import CONNECT_TIMEOUT, address_of

_REQUEST_TIMEOUT_MS = 5000
_POSTGRES_PORT = 5432
# Larger than `work_mem`, so that PostgreSQL writes a temporary file (480 kB), which fails if its disk is full.
_SPILL = "SELECT count(*) FROM generate_series(1, 20000)"


def engine_checks_of(
    service: str, settings: EngineSettings, topics: Collection[str], *, has_objects: bool
) -> dict[str, EngineCheck]:
    """Returns a check for each engine of a service: PostgreSQL, Kafka, and the object store if the service uses it.

    Args:
        topics: the topics that the service reads, without prefix. The topics that it publishes to are known.
    """
    checks: dict[str, EngineCheck] = {POSTGRES: lambda: _check_postgres(settings)}
    if has_objects:
        from vesta_common.storage.objects import ObjectStore  # boto3 is loaded only by services that use objects

        store = ObjectStore.of(settings, attempts_max=1)
        checks[OBJECTS] = lambda: store.check(f".health/{service}")
    if settings.kafka_bootstrap:
        names = {settings.kafka_topic_prefix + topic for topic in {*topics, *OWNED.get(service, ())}}
        checks[KAFKA] = lambda: _check_kafka(settings, names)
    return checks


def _check_postgres(settings: EngineSettings) -> None:
    address = address_of(settings)
    try:
        with psycopg.connect(address, connect_timeout=int(CONNECT_TIMEOUT.total_seconds())) as connection:
            connection.execute("SET LOCAL statement_timeout = '5s'")
            connection.execute("SET LOCAL work_mem = '64kB'")
            connection.execute(_SPILL)
    except psycopg.OperationalError as error:
        reason = _postgres_tls_failure(address) if "certificate verify failed" in str(error) else ""
        if not reason:
            raise
        raise psycopg.OperationalError(f"{error}: {reason}") from error


def _postgres_tls_failure(address: str) -> str:
    options = conninfo_to_dict(address)
    authorities = str(options.get("sslrootcert") or "system")
    return tls_failure(
        str(options.get("host")),
        int(options.get("port") or _POSTGRES_PORT),
        "" if authorities == "system" else authorities,
        is_postgres=True,
    )


def _check_kafka(settings: EngineSettings, topics: set[str]) -> None:
    try:
        client = KafkaAdminClient(**Broker.of(settings).connection, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    except (KafkaError, OSError) as error:
        reason = _kafka_tls_failure(settings) if settings.kafka_security_protocol.endswith("SSL") else ""
        if not reason:
            raise
        raise KafkaError(f"{error}: {reason}") from error
    try:
        missing = topics - set(client.list_topics())
    finally:
        client.close()
    if missing:
        raise ExplainedError(f"is not set up (missing topics: {', '.join(sorted(missing))}); run `vesta-admin setup`")


def _kafka_tls_failure(settings: EngineSettings) -> str:
    brokers = [broker.strip().rpartition(":") for broker in settings.kafka_bootstrap.split(",")]
    return next(filter(None, (tls_failure(host, int(port), settings.kafka_ca_file) for host, _, port in brokers)), "")

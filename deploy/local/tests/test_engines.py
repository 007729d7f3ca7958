"""The engines keep acknowledged writes through a kill, and reject clients without a key."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import boto3
import psycopg
import pytest
from botocore.exceptions import ClientError
from vesta_common.events.broker import Broker, open_consumer, open_producer
from vesta_local.engines import objects, postgres
from vesta_local.platform import Platform
from vesta_local.testing import RECOVERY_DEADLINE, running_platform

BACKENDS = 2
FRAMES = "vesta.pipelining.frame.v1"


@pytest.mark.own_engines
def test_postgres_keeps_what_was_committed_through_a_kill(engines: Platform, postgres_schema: str) -> None:
    with psycopg.connect(postgres.url(engines.home), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {postgres_schema}")
        connection.execute(f"CREATE TABLE {postgres_schema}.survivors AS SELECT 7 AS id")
        engines.supervisor.kill("postgres")
    engines.wait_healthy(["postgres"], RECOVERY_DEADLINE)
    with psycopg.connect(postgres.url(engines.home)) as connection:
        assert connection.execute(f"SELECT id FROM {postgres_schema}.survivors").fetchall() == [(7,)]


@pytest.mark.own_engines
def test_postgres_comes_back_at_once_where_backends_of_the_killed_server_are_still_busy() -> None:
    with running_platform(block=1, only=("postgres",)) as platform:
        address = postgres.url(platform.home)
        with ThreadPoolExecutor(BACKENDS) as pool:
            busy = [pool.submit(_compute_for_minutes, address) for _ in range(BACKENDS)]
            _await_active(address, BACKENDS)
            platform.supervisor.kill("postgres")
            platform.wait_healthy(["postgres"], RECOVERY_DEADLINE)
            # Clients lose the connection: no backend of the killed server writes concurrently with the new one.
            assert all(isinstance(one.exception(timeout=10), psycopg.OperationalError) for one in busy)
        exits = (platform.home.logs / "supervisord.log").read_text().count("exited: postgres")
        assert exits == 1


def _compute_for_minutes(address: str) -> None:
    with psycopg.connect(address) as connection:
        connection.execute("SELECT count(*) FROM generate_series(1, 1000000000)")


def _await_active(address: str, count: int) -> None:
    deadline = time.monotonic() + RECOVERY_DEADLINE.total_seconds()
    with psycopg.connect(address, autocommit=True) as connection:
        while connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%generate_series(1, 10%'"
            " AND pid <> pg_backend_pid()"
        ).fetchone() != (count,):
            assert time.monotonic() < deadline, "the queries do not run"


def test_postgres_has_vectors_and_trigrams(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT '[1,2]'::vector <-> '[1,3]'::vector").fetchone() == (1.0,)
        assert connection.execute("SELECT similarity('vesta', 'vesta')").fetchone() == (1.0,)


@pytest.mark.own_engines
def test_objects_keep_what_was_stored_through_a_kill(engines: Platform) -> None:
    store = objects.client(engines.home)
    store.put_object(Bucket="vesta", Key="survivor", Body=b"still here")
    engines.supervisor.kill("objects")
    engines.wait_healthy(["objects"], RECOVERY_DEADLINE)
    assert store.get_object(Bucket="vesta", Key="survivor")["Body"].read() == b"still here"


@pytest.mark.own_engines
@pytest.mark.parametrize("victims", [("events",), ("objects",), ("objects", "events")])
def test_events_keep_what_was_acknowledged_through_a_kill(
    engines: Platform,
    create_topics: Callable[..., None],
    kafka_broker: Broker,
    kafka_topic_prefix: str,
    victims: tuple[str, ...],
) -> None:
    topic = kafka_topic_prefix + FRAMES
    create_topics(FRAMES)
    producer = open_producer(kafka_broker)
    producer.send(topic, b"first").get(timeout=10)
    producer.close()
    for victim in victims:
        engines.supervisor.kill(victim)
    engines.wait_healthy(["objects", "events"], RECOVERY_DEADLINE)
    consumer = open_consumer(kafka_broker, topic, auto_offset_reset="earliest", consumer_timeout_ms=10_000)
    assert next(consumer).value == b"first"
    consumer.close()


@pytest.mark.own_engines
def test_the_object_store_accepts_no_foreign_key(engines: Platform) -> None:
    stranger = boto3.client(
        "s3",
        endpoint_url=objects.endpoint(engines.home),
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="y",
    )
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        stranger.list_buckets()


@pytest.mark.own_engines
def test_postgres_accepts_no_foreign_password(engines: Platform) -> None:
    wrong = postgres.url(engines.home).replace(engines.home.secrets["postgres_password"], "guess")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong, connect_timeout=5)

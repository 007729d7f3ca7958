"""The engines come back from a kill with what they acknowledged, and let nobody in without a key."""

from datetime import timedelta

import boto3
import psycopg
import pytest
from botocore.exceptions import ClientError
from kafka import KafkaConsumer, KafkaProducer
from vesta_local.engines import events, objects, postgres
from vesta_local.platform import Platform

COMEBACK = timedelta(seconds=30)


def test_postgres_keeps_what_was_committed_through_a_kill(engines: Platform, postgres_schema: str) -> None:
    with psycopg.connect(postgres.url(engines.home), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {postgres_schema}")
        connection.execute(f"CREATE TABLE {postgres_schema}.survivors AS SELECT 7 AS id")
        engines.supervisor.kill("postgres")
    engines.wait_healthy(["postgres"], COMEBACK)
    with psycopg.connect(postgres.url(engines.home)) as connection:
        assert connection.execute(f"SELECT id FROM {postgres_schema}.survivors").fetchall() == [(7,)]


def test_postgres_has_vectors_and_trigrams(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT '[1,2]'::vector <-> '[1,3]'::vector").fetchone() == (1.0,)
        assert connection.execute("SELECT similarity('vesta', 'vesta')").fetchone() == (1.0,)


def test_objects_keep_what_was_stored_through_a_kill(engines: Platform) -> None:
    store = objects.client(engines.home)
    store.put_object(Bucket="vesta", Key="survivor", Body=b"still here")
    engines.supervisor.kill("objects")
    engines.wait_healthy(["objects"], COMEBACK)
    assert store.get_object(Bucket="vesta", Key="survivor")["Body"].read() == b"still here"


@pytest.mark.parametrize("victims", [("events",), ("objects",), ("objects", "events")])
def test_events_keep_what_was_acknowledged_through_a_kill(
    engines: Platform, kafka_topic_prefix: str, victims: tuple[str, ...]
) -> None:
    topic = f"{kafka_topic_prefix}survivors"
    bootstrap = engines.home.address("events")
    events.create_topics(engines.home, {topic: 1})
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=False)
    producer.send(topic, b"first").get(timeout=10)
    producer.close()
    for victim in victims:
        engines.supervisor.kill(victim)
    engines.wait_healthy(["objects", "events"], COMEBACK)
    consumer = KafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=10_000
    )
    assert next(consumer).value == b"first"
    consumer.close()


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


def test_postgres_accepts_no_foreign_password(engines: Platform) -> None:
    wrong = postgres.url(engines.home).replace(engines.home.secrets["postgres_password"], "guess")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong, connect_timeout=5)

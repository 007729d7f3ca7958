"""The engines come back from a kill with what they acknowledged, and the platform picks other ports where the usual are taken."""

import socket
from datetime import timedelta

import psycopg
import pytest
from kafka import KafkaConsumer, KafkaProducer
from vesta_local.engines import events, objects, postgres
from vesta_local.home import HOST, USUAL_PORTS, Home
from vesta_local.platform import Platform

COMEBACK = timedelta(seconds=30)


def test_postgres_keeps_what_was_committed_through_a_kill(engines: Platform) -> None:
    with psycopg.connect(postgres.url(engines.home), autocommit=True) as connection:
        connection.execute("CREATE TABLE public.survivors (id int)")
        connection.execute("INSERT INTO public.survivors VALUES (7)")
    engines.supervisor.kill("postgres")
    engines.wait_healthy(["postgres"], COMEBACK)
    with psycopg.connect(postgres.url(engines.home), autocommit=True) as connection:
        assert connection.execute("SELECT id FROM public.survivors").fetchall() == [(7,)]
        connection.execute("DROP TABLE public.survivors")


def test_objects_keep_what_was_stored_through_a_kill(engines: Platform) -> None:
    store = objects.client(engines.home)
    store.put_object(Bucket="vesta", Key="survivor", Body=b"still here")
    engines.supervisor.kill("objects")
    engines.wait_healthy(["objects"], COMEBACK)
    assert store.get_object(Bucket="vesta", Key="survivor")["Body"].read() == b"still here"


def test_events_keep_what_was_acknowledged_through_a_kill(engines: Platform) -> None:
    events.create_topics(engines.home, {"survivors": 1})
    producer = KafkaProducer(bootstrap_servers=engines.home.address("events"), acks="all", enable_idempotence=False)
    producer.send("survivors", b"first").get(timeout=10)
    producer.close()
    engines.supervisor.kill("events")
    engines.wait_healthy(["events"], COMEBACK)
    consumer = KafkaConsumer(
        "survivors",
        bootstrap_servers=engines.home.address("events"),
        auto_offset_reset="earliest",
        consumer_timeout_ms=10_000,
    )
    assert next(consumer).value == b"first"
    consumer.close()


def test_the_object_store_accepts_no_foreign_key(engines: Platform) -> None:
    import boto3
    from botocore.exceptions import ClientError

    stranger = boto3.client(
        "s3",
        endpoint_url=objects.endpoint(engines.home),
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="y",
    )
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        stranger.list_buckets()


def test_a_taken_port_is_passed_over_and_the_choice_is_remembered(tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        home = Home(tmp_path, {**USUAL_PORTS, "gateway": port})
        assert home.ports["gateway"] != port
    assert Home(tmp_path, {**USUAL_PORTS, "gateway": port}).ports == home.ports


def test_a_second_up_starts_nothing_anew(engines: Platform) -> None:
    before = {state.name: state.pid for state in engines.supervisor.states()}
    engines.up()
    assert {state.name: state.pid for state in engines.supervisor.states()} == before

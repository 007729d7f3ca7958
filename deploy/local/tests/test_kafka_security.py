"""Kafka clients with SASL and TLS, against a real Apache Kafka with test certificates."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import KafkaError
from prometheus_client import CollectorRegistry
from vesta_admin.broker import create_topics
from vesta_admin.catalogue import topics
from vesta_admin.settings import Settings
from vesta_common.clock import SystemClock
from vesta_common.events import dead_letters
from vesta_common.events.broker import Broker, close_producer, open_consumer, open_producer
from vesta_common.events.consumer import ConsumerMetrics, KafkaOptions
from vesta_common.events.consumer.dead_letter_topic import DeadLetterTopic
from vesta_common.events.consumer.membership import Membership
from vesta_gateway.events.tail import new_consumer
from vesta_local.engines import apache_kafka
from vesta_local.ports import HOST, is_free
from vesta_local.services import FETCH_WAIT_MS
from vesta_local.testing import ports
from vesta_local.testing_tls import an_authority

pytestmark = pytest.mark.apache_kafka
DEADLINE_SECONDS = 150
FRAMES = next(topic for topic in topics() if topic.name == "vesta.pipelining.frame.v1")
DEAD = "vesta.pipelining.dead_letter.v1"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """An Apache Kafka with SASL over TLS, and the settings of a client with the password."""
    folder = tmp_path_factory.mktemp("secured")
    authority = an_authority(folder)
    listen, control = ports(block=7)["events"], ports(block=7)["events_controller"]
    login = "org.apache.kafka.common.security"
    properties = {
        **apache_kafka.one_node(),
        "controller.quorum.voters": f"1@{HOST}:{control}",
        "listeners": f"SASL_SSL://{HOST}:{listen},CONTROLLER://{HOST}:{control}",
        "advertised.listeners": f"SASL_SSL://{HOST}:{listen}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
        "inter.broker.listener.name": "SASL_SSL",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{login}.plain.PlainLoginModule required username="vesta" '
        'password="swordfish" user_vesta="swordfish";',
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.issue("broker")),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "ca.pem"),
        "log.dirs": str(folder / "log"),
    }
    path = folder / "server.properties"
    path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    scram = "SCRAM-SHA-512=[name=cameras,password=mackerel]"
    apache_kafka.format_folder(path, folder / "log", "MkU3OEVBNTcwNTJENDM2Qk", "--add-scram", scram)
    command = [*apache_kafka.command_of("kafka.Kafka"), str(path)]
    with (folder / "out").open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while is_free(listen):
                assert process.poll() is None, (folder / "out").read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.1)
            found = Broker(
                f"{HOST}:{listen}",
                "SASL_SSL",
                "PLAIN",
                "vesta",
                "swordfish",
                str(folder / "ca.pem"),
                is_idempotent=True,
            )
            create_topics(settings_of(found), topics())
            yield found
        finally:
            process.kill()


def settings_of(broker: Broker) -> Settings:
    return Settings(
        postgres_url="postgresql://unused",
        kafka_bootstrap=broker.bootstrap,
        kafka_security_protocol=broker.security_protocol,
        kafka_sasl_mechanism=broker.sasl_mechanism,
        kafka_sasl_username=broker.sasl_username,
        kafka_sasl_password=broker.sasl_password,
        kafka_ca_file=broker.ca_file,
    )


def test_the_settings_say_how_to_reach_it(broker: Broker) -> None:
    assert Broker.of(settings_of(broker)) == broker
    assert create_topics(settings_of(broker), topics()) == []  # they exist since the broker was started


@pytest.mark.parametrize(
    ("mechanism", "name", "password"),
    [("PLAIN", "vesta", "swordfish"), ("SCRAM-SHA-512", "cameras", "mackerel")],
)
def test_the_largest_frame_is_sent_and_read_by_whoever_knows_the_password(
    broker: Broker, mechanism: str, name: str, password: str
) -> None:
    client = replace(broker, sasl_mechanism=mechanism, sasl_username=name, sasl_password=password)
    producer = open_producer(client)
    sent = producer.send(FRAMES.name, value=bytes(FRAMES.value_bytes_max), key=name.encode()).get(30)
    close_producer(producer)
    with closing(open_consumer(client)) as consumer:
        consumer.assign([TopicPartition(FRAMES.name, sent.partition)])
        consumer.seek(TopicPartition(FRAMES.name, sent.partition), sent.offset)
        (records,) = consumer.poll(timeout_ms=30_000).values()
    assert len(records[0].value) == FRAMES.value_bytes_max


def test_a_group_reads_and_the_gateway_follows(broker: Broker) -> None:
    producer = open_producer(broker)
    sent = producer.send("vesta.annotation.task.v1", value=b"fact", key=b"task").get(30)
    close_producer(producer)
    options, stopping = KafkaOptions(broker, fetch_wait_ms=FETCH_WAIT_MS), threading.Event()
    member = Membership(options, "datasets.labels", ["vesta.annotation.task.v1"], 10, SystemClock(), stopping)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (polled := member.poll(500)):
        assert time.monotonic() < deadline
    member.leave()
    assert [record.value for records in polled.values() for record in records] == [b"fact"]
    with closing(new_consumer(options)) as consumer:
        partition = TopicPartition("vesta.annotation.task.v1", sent.partition)
        assert consumer.end_offsets([partition]) == {partition: 1}


@dataclass(frozen=True)
class Record:
    """A dead letter."""

    value: bytes
    topic: str = FRAMES.name
    partition: int = 0
    offset: int = 7
    key: bytes = b"door"
    headers: tuple[tuple[str, bytes], ...] = ()


def test_dead_letters_are_kept_and_read(broker: Broker) -> None:
    kept = DeadLetterTopic(broker, DEAD, "frames", ConsumerMetrics("pipelining", CollectorRegistry()))
    kept.keep(Record(bytes(FRAMES.value_bytes_max)), "NOT_AN_IMAGE: no image")
    kept.close()
    (letter,) = dead_letters.read(broker, DEAD)
    assert (letter.position, letter.omitted_bytes, len(letter.value or b"")) == ("0:7", 0, FRAMES.value_bytes_max)


def test_a_wrong_password_a_foreign_authority_and_plain_text_are_refused(broker: Broker, tmp_path: Path) -> None:
    an_authority(tmp_path)
    for wrong in (
        replace(broker, sasl_password="guess"),
        replace(broker, ca_file=str(tmp_path / "ca.pem")),
        replace(broker, security_protocol="PLAINTEXT"),
    ):
        with pytest.raises(KafkaError), closing(KafkaAdminClient(**wrong.connection)) as admin:
            admin.list_topics()

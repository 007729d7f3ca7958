"""Engines that cannot be used are named with what helps, and make a service unready but not dead."""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vesta_common.rpc.health import READY, problems_in
from vesta_common.rpc.server import LIVE, Server
from vesta_common.runtime.engine_checks import engine_checks_of
from vesta_common.runtime.engine_watch import EngineWatch, ExplainedError, describe_failure
from vesta_common.runtime.self_checks import IDENTITY, self_checks_of
from vesta_common.settings import ServiceSettings
from vesta_local.testing import identity_of
from vesta_local.testing_tls import an_authority, tls_proxy

PATIENCE_SECONDS = 30.0
TOPICS = ("vesta.datasets.item.v1",)
Settings = Callable[[str], dict[str, Any]]


def problems(given: Mapping[str, Any], topics: tuple[str, ...] = (), service: str = "sample") -> list[str]:
    """What a watch finds with these settings, once each engine was tried."""
    settings = ServiceSettings(**given)
    watch = EngineWatch(engine_checks_of(service, settings, topics, has_objects=True))
    watch.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any("not been checked" in problem for problem in watch.problems()):
        assert time.monotonic() < deadline, watch.problems()
        time.sleep(0.02)
    watch.stop()
    return watch.problems()


def test_nothing_hinders_where_all_engines_work(service_settings: Settings, create_topics: Callable[..., None]) -> None:
    create_topics(*TOPICS)
    assert problems(service_settings("sample"), TOPICS) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"postgres_url": "postgresql://vesta@127.0.0.1:9/vesta"},
            "PostgreSQL does not respond; check that it is running, and POSTGRES_URL",
        ),
        ({"postgres_password": "wrong"}, "PostgreSQL rejects the password; check POSTGRES_URL, POSTGRES_PASSWORD"),
        ({"s3_access_key": "stranger"}, "the object store rejects the credentials; check S3_ENDPOINT_URL"),
        ({"s3_bucket": "nobody-made-it"}, "the object store is not set up; run `vesta-admin setup`"),
        ({"s3_endpoint_url": "http://127.0.0.1:9"}, "the object store does not respond; check that it is running"),
        ({"kafka_bootstrap": "127.0.0.1:9"}, "Kafka does not respond; check that it is running, and KAFKA_BOOTSTRAP"),
    ],
)
def test_an_engine_that_cannot_be_used_is_named_with_what_helps(
    service_settings: Settings, changes: dict[str, str], words: str
) -> None:
    (found,) = problems({**service_settings("sample"), **changes})
    assert found.startswith(words)


def test_an_expired_certificate_is_named_and_a_renewed_one_is_accepted(
    service_settings: Settings, tmp_path: Path
) -> None:
    given, authority = service_settings("sample"), an_authority(tmp_path)
    expired = authority.issue("expired", valid_for=-timedelta(minutes=1))
    server = given["postgres_url"].rpartition("@")[2].partition("/")[0]
    with (
        tls_proxy(expired, server, is_postgres=True) as postgres,
        tls_proxy(expired, given["s3_endpoint_url"].removeprefix("http://")) as objects,
        tls_proxy(expired, given["kafka_bootstrap"]) as kafka,
    ):
        given |= {
            "postgres_url": f"{given['postgres_url'].replace(server, postgres.address)}?sslmode=verify-ca&sslrootcert={authority.ca_file}",
            "s3_endpoint_url": f"https://{objects.address}",
            "s3_ca_file": authority.ca_file,
            "kafka_bootstrap": kafka.address,
            "kafka_security_protocol": "SSL",
            "kafka_ca_file": authority.ca_file,
        }
        found = sorted(problems(given))
        assert found == [
            f"{engine} has an expired certificate; renew the certificate"
            for engine in ("Kafka", "PostgreSQL", "the object store")
        ]
        for door in (postgres, objects):
            door.use(authority.issue("renewed"))
        # The broker tells its clients to go on to its own door, which speaks no TLS.
        assert [problem for problem in problems(given) if not problem.startswith("Kafka")] == []


def test_a_database_that_is_not_there_is_to_be_set_up(service_settings: Settings) -> None:
    given = service_settings("sample")
    given["postgres_url"] = given["postgres_url"].rpartition("/")[0] + "/missing"
    assert problems(given) == ["PostgreSQL is not set up; run `vesta-admin setup`"]


def test_kafka_without_topics_is_to_be_set_up(service_settings: Settings) -> None:
    (found,) = problems(service_settings("sample"), TOPICS)
    assert found.startswith("Kafka is not set up (missing topics: test-")
    assert found.endswith("vesta.datasets.item.v1); run `vesta-admin setup`")


def test_topics_that_a_service_only_publishes_on_are_looked_at_too(service_settings: Settings) -> None:
    (found,) = problems(service_settings("sample"), service="annotation")
    assert "vesta.annotation.task.v1); run `vesta-admin setup`" in found


def test_an_engine_that_fails_is_tried_again_earlier_than_one_that_works() -> None:
    calls = {"PostgreSQL": 0, "Kafka": 0}

    def work() -> None:
        calls["PostgreSQL"] += 1

    def fail() -> None:
        calls["Kafka"] += 1
        raise OSError("connection refused")

    watch = EngineWatch(
        {"PostgreSQL": work, "Kafka": fail}, timedelta(hours=1), interval_failing=timedelta(milliseconds=1)
    )
    watch.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while calls["PostgreSQL"] < 1 or calls["Kafka"] < 3:
        assert time.monotonic() < deadline, calls
        time.sleep(0.01)
    watch.stop()
    assert calls["PostgreSQL"] == 1


def test_an_engine_that_takes_too_long_counts_as_away() -> None:
    answering = Event()
    watch = EngineWatch({"Kafka": lambda: answering.wait() and None}, timedelta(0), timeout=timedelta(milliseconds=50))
    watch.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not watch.problems()[0].startswith("Kafka does not respond"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    answering.set()
    while watch.problems():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    watch.stop()


def test_a_certificate_of_our_own_that_expired_is_told(tmp_path: Path) -> None:
    authority = an_authority(tmp_path)
    path = authority.issue("mine", valid_for=-timedelta(minutes=1))
    given = ServiceSettings(postgres_url="postgresql://x", kafka_certificate_file=str(path), kafka_key_file=str(path))
    expired = x509.load_pem_x509_certificate(path.read_bytes())
    checks = self_checks_of(given, lambda: expired)
    with pytest.raises(ExplainedError, match=r"expired on .* UTC; `vesta-admin certificates` renews it"):
        checks[IDENTITY]()
    with pytest.raises(ExplainedError, match=r"expired on .* UTC; renew it"):
        checks["the certificate of KAFKA_CERTIFICATE_FILE"]()
    authority.issue("mine")
    checks["the certificate of KAFKA_CERTIFICATE_FILE"]()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("SSL error: certificate has expired", "has an expired certificate; renew"),
        ("could not extend file: No space left on device", "has no free disk space; free disk space"),
        ("certificate verify failed", "has a certificate that is not trusted"),
        ("FATAL: sorry, too many clients already", "has no free connections; raise its max_connections"),
        ("FATAL: the database system is in recovery mode", "is starting or recovering; wait; if it lasts, see its log"),
        ("TopicAuthorizationFailedError", "rejects the credentials"),
    ],
)
def test_other_failures_are_told_by_their_message(error: str, words: str) -> None:
    assert words in describe_failure("PostgreSQL", RuntimeError(error))


def test_a_problem_makes_a_service_unready_says_why_and_leaves_it_alive() -> None:
    server = Server(identity_of("sample"), "127.0.0.1:0", [])
    server.start()
    server.set_healthy(healthy=True, problems=["Kafka does not respond; check that it is running"])
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer, call = stub.Check.with_call(health_pb2.HealthCheckRequest())
        live = stub.Check(health_pb2.HealthCheckRequest(service=LIVE))
        with pytest.raises(grpc.RpcError) as refused:
            stub.Check(health_pb2.HealthCheckRequest(service=READY))
        server.set_healthy(healthy=True)
        ready = stub.Check(health_pb2.HealthCheckRequest(service=READY))
    server.stop(timedelta(0))
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert problems_in(call.trailing_metadata()) == ["Kafka does not respond; check that it is running"]
    assert live.status == health_pb2.HealthCheckResponse.SERVING
    assert (
        refused.value.details() == "Kafka does not respond; check that it is running"
    )  # as `kubectl describe` shows it
    assert ready.status == health_pb2.HealthCheckResponse.SERVING

"""A platform on external engines, over TLS and with passwords; it does not start engines of its own."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from kafka import KafkaAdminClient
from psycopg.conninfo import make_conninfo
from vesta_common.events.broker import Broker
from vesta_common.storage.objects import open_client
from vesta_common.storage.postgres import address_of
from vesta_local import services
from vesta_local.engines import external_engines
from vesta_local.engines.addresses import admin_settings
from vesta_local.engines.inference import check_authorities
from vesta_local.home import Home
from vesta_local.platform import Platform
from vesta_local.settings import Settings
from vesta_local.testing import running_platform
from vesta_local.testing_tls import TlsProxy, an_authority, tls_proxy

PROGRAMS = ("postgres", "objects", "events", "retention", "storage", "annotation")


@pytest.fixture
def site(engines: Platform, tmp_path: Path) -> Iterator[tuple[Settings, TlsProxy]]:
    """The session's engines behind TLS-terminating proxies, as an administrator would configure them; and the proxy of PostgreSQL."""
    authority, own = an_authority(tmp_path), admin_settings(engines.home)
    certificate = authority.issue("engines")
    at_postgres = own.postgres_url.rpartition("@")[2].partition("/")[0]
    with (
        tls_proxy(certificate, at_postgres, is_postgres=True) as postgres,
        tls_proxy(certificate, own.s3_endpoint_url.removeprefix("http://")) as objects,
    ):
        found = own.model_copy(
            update={
                "postgres_url": f"postgresql://vesta@{postgres.address}/vesta?sslmode=verify-ca&sslrootcert={authority.ca_file}",
                "postgres_password": engines.home.secrets["postgres_password"],
                "s3_endpoint_url": f"https://{objects.address}",
                "s3_ca_file": authority.ca_file,
                "triton_address": "",
                "storage_path": "",
                "wait_seconds": 30,
            }
        )
        yield Settings(**{name: external_engines.plain(value) for name, value in found}), postgres


def test_services_run_on_engines_elsewhere_and_what_a_test_puts_there_is_gone_afterwards(
    site: tuple[Settings, TlsProxy],
) -> None:
    given, _ = site
    with running_platform(block=3, only=PROGRAMS, engines=given) as platform:
        used = admin_settings(platform.home)
        rows = {row.name: row.state for row in platform.rows()}
        assert rows == dict.fromkeys(("postgres", "objects", "events", "annotation", "supervisor"), "healthy")
        assert platform.names == ("annotation",)
        assert not {"postgres", "objects", "events", "retention", "storage"} & platform.programs.keys()
        assert _leftovers(used) == {"database": True, "bucket": True, "topics": True}
        written = json.loads((platform.home.run / "addresses.json").read_text())
        assert written["events"] == given.kafka_bootstrap
    assert _leftovers(used) == {"database": False, "bucket": False, "topics": False}


def _leftovers(settings: Settings) -> dict[str, bool]:
    """Returns what the platform has created on the engines that it shares with others."""
    name = settings.s3_bucket
    with psycopg.connect(make_conninfo(address_of(settings), dbname="postgres")) as connection:
        database = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
    buckets = {bucket["Name"] for bucket in open_client(settings).list_buckets()["Buckets"]}
    admin = KafkaAdminClient(**Broker.of(settings).access)
    topics = [topic for topic in admin.list_topics() if topic.startswith(settings.kafka_topic_prefix)]
    admin.close()
    return {"database": database is not None, "bucket": name in buckets, "topics": bool(topics)}


def test_status_says_what_hinders_an_engine_elsewhere(site: tuple[Settings, TlsProxy], tmp_path: Path) -> None:
    given, proxy = site
    home = Home(tmp_path / "home")
    external_engines.choose(home, given)
    platform = Platform(home, ["postgres", "annotation"])
    home.make_sockets()
    platform.supervisor.start(list(platform.programs.values()))
    try:
        stranger = tmp_path / "stranger"
        stranger.mkdir()
        proxy.use(an_authority(stranger).issue("stranger"))
        states = {row.name: row.state for row in platform.rows()}
        assert states["postgres"].startswith("PostgreSQL has a certificate that is not trusted; check the authorities")
    finally:
        platform.down()


def test_a_home_keeps_its_engines_and_how_to_reach_them(tmp_path: Path) -> None:
    home = Home(tmp_path)
    managed = Settings(postgres_url="postgresql://vesta@db.example/vesta", postgres_password="swordfish")
    external_engines.choose(home, managed)
    assert (home.run / "engines.json").stat().st_mode & 0o077 == 0
    assert external_engines.of(Home(tmp_path)).external == {"postgres"}
    environment = services.environment(home, "annotation")
    assert environment["VESTA_ANNOTATION_POSTGRES_URL"] == "postgresql://vesta@db.example/vesta"
    assert environment["VESTA_ANNOTATION_POSTGRES_PASSWORD"] == "swordfish"
    home.choose_ports()
    external_engines.choose(home, managed.model_copy(update={"postgres_url": "postgresql://vesta@other.example/vesta"}))
    with pytest.raises(RuntimeError, match=r"was started with the external engines postgres .*use another home"):
        external_engines.choose(home, Settings(kafka_bootstrap="kafka.example:9092"))


def test_a_triton_of_the_home_s_own_must_trust_the_object_store_by_the_system_s_authorities(tmp_path: Path) -> None:
    authority, bundle = an_authority(tmp_path), tmp_path / "ca-certificates.crt"
    given = Settings(s3_endpoint_url="https://s3.example", s3_ca_file=authority.ca_file)
    with pytest.raises(RuntimeError, match="update-ca-certificates"):
        check_authorities(given, bundle)
    bundle.write_text(f"others\n{Path(authority.ca_file).read_text()}")
    check_authorities(given, bundle)


def test_consumers_of_a_broker_elsewhere_have_the_plain_settings_of_kafka_s_clients(tmp_path: Path) -> None:
    own, kafka = Home(tmp_path / "own"), Home(tmp_path / "kafka")
    external_engines.choose(kafka, Settings(kafka_bootstrap="one.example:9092,two.example:9092"))
    assert "VESTA_PIPELINING_KAFKA_FETCH_WAIT_MS" in services.environment(own, "pipelining")
    told = services.environment(kafka, "pipelining")
    assert {name: value for name, value in told.items() if "_KAFKA_" in name} == {
        "VESTA_PIPELINING_KAFKA_BOOTSTRAP": "one.example:9092,two.example:9092"
    }

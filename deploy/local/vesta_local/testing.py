"""pytest fixtures: the real engines, started once per test session, with a separate schema, key prefix and topic prefix for each test.

Loaded by the root conftest.py. An engine that does not start fails the tests that need it; nothing is skipped.
"""

import atexit
import ctypes
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg import sql
from vesta_admin import broker
from vesta_admin.catalogue import topics
from vesta_common.events.broker import Broker
from vesta_common.identity import CredentialFiles, Identity
from vesta_common.ids import new_id

from vesta_local import identities
from vesta_local.engines import addresses, external_engines
from vesta_local.engines.addresses import admin_settings
from vesta_local.home import BROKERS, Home
from vesta_local.platform import Platform
from vesta_local.ports import DEFAULT_PORTS
from vesta_local.settings import Settings
from vesta_local.trace_receiver import TraceReceiver

# Port blocks outside the default ports, different for each test session and each of its processes. SeaweedFS also uses each of its ports
# plus 10,000.
PORTS_FIRST = 11_000
_BLOCKS = 136
_BLOCKS_OF_PROCESS = 8
_BLOCK_LENGTH = 64


def ports(block: int) -> dict[str, int]:
    """Returns the consecutive ports of a test home; `block`, from 0 to 7, distinguishes the homes of one process."""
    start = PORTS_FIRST + (_BLOCKS_OF_PROCESS * os.getpid() + block) % _BLOCKS * _BLOCK_LENGTH
    return {name: start + index for index, name in enumerate(DEFAULT_PORTS)}


@cache
def identity_of(service: str) -> Identity:
    """Returns the identity of a service in this test process."""
    return Identity(identity_files(service))


def identity_files(service: str) -> CredentialFiles:
    """Returns the paths of a service's certificate files."""
    folder = _identities()
    identities.prepare(folder, [service])
    return identities.credential_files(folder, service)


def identity_settings(service: str) -> dict[str, str]:
    """Returns the settings for a service's certificate files."""
    files = identity_files(service)
    return {
        "identity_certificate_file": str(files.certificate),
        "identity_key_file": str(files.key),
        "identity_ca_file": str(files.authorities),
    }


@cache
def _identities() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="vesta-test-identities-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def scratch_folder() -> Path:
    """Creates a temporary folder that other users can read, for PostgreSQL as `nobody`."""
    folder = Path(tempfile.mkdtemp(prefix="vesta-test-"))
    folder.chmod(0o755)
    return folder


# How long a killed program may take to become healthy again on a busy machine. About 2 s are usual, PostgreSQL replays at most 1 GB of
# WAL (`max_wal_size`), and the timeout of a test is 300 s.
RECOVERY_DEADLINE = timedelta(seconds=150)


# A test that requests one of these fixtures, directly or indirectly, uses events.
_EVENT_FIXTURES = {"kafka_bootstrap", "create_topics", "platform", "broker_kind"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--kafka`. `--kafka=apache` runs only tests that use events, on Apache Kafka."""
    parser.addoption(
        "--kafka", choices=BROKERS, default=BROKERS[0], help="the broker; with apache, only tests that use events"
    )


@pytest.fixture(scope="session")
def broker_kind(request: pytest.FixtureRequest) -> str:
    """Returns the broker of this session, for tests that start a platform with `running_platform`."""
    return str(request.config.getoption("--kafka"))


def pytest_report_header() -> str:
    """Adds the hardware that training and serving are tested on to the report header."""
    return hardware_line(_count_gpus())


def hardware_line(gpus: int) -> str:
    """Returns the header for this number of GPUs with CUDA."""
    if gpus:
        return f"{gpus} GPU{'s' if gpus > 1 else ''} with CUDA: training is tested on it; the wheel's Triton serves on the CPU"
    return "no GPU with CUDA: training and serving are tested only on the CPU"


def _count_gpus() -> int:
    """Counts GPUs with the driver, because importing PyTorch takes seconds."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    return count.value if driver.cuInit(0) == driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects tests: those of the other broker, those without events with Apache Kafka, those that kill engines with external engines."""
    if Settings().external:
        foreign = ("embedded_kafka", "apache_kafka", "own_engines")
        selected = [item for item in items if not any(map(item.get_closest_marker, foreign))]
    elif config.getoption("--kafka") == "apache":
        selected = [item for item in items if _touches_events(item) and not item.get_closest_marker("embedded_kafka")]
    else:
        selected = [item for item in items if not item.get_closest_marker("apache_kafka")]
    chosen = {*selected}
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = selected


def _touches_events(item: pytest.Item) -> bool:
    """Whether a test uses events, according to its fixtures or its marker."""
    if item.get_closest_marker("apache_kafka"):
        return True
    return not item.get_closest_marker("no_events") and bool(_EVENT_FIXTURES & set(getattr(item, "fixturenames", ())))


@pytest.fixture(scope="session")
def engines(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """PostgreSQL, the object store and the broker."""
    with running_platform(0, ("postgres", "objects", "events"), request.config.getoption("--kafka")) as platform:
        yield platform
        _keep_logs_of_failure(request.session, platform.home)


@pytest.fixture(scope="session")
def triton(engines: Platform) -> str:
    """HOST:PORT of a Triton whose repository is `triton/` on the engines' object store."""
    Platform(engines.home, ["inference"]).up()
    return admin_settings(engines.home).triton_address


@dataclass(frozen=True)
class WholePlatform:
    """The whole platform, for tests that involve several services."""

    platform: Platform

    @property
    def home(self) -> Home:
        return self.platform.home

    @property
    def addresses(self) -> dict[str, str]:
        """HOST:PORT of each listener, from addresses.json."""
        return dict(json.loads((self.home.run / "addresses.json").read_text()))

    @property
    def owner_key(self) -> str:
        """The API key of the platform owner."""
        return self.home.owner_key

    @property
    def broker(self) -> Broker:
        """The connection to Kafka."""
        return addresses.broker(self.home)

    def topic(self, name: str) -> str:
        """Returns the name of a topic of the catalogue with the prefix."""
        return admin_settings(self.home).kafka_topic_prefix + name

    def kill(self, name: str) -> int:
        """Kills a program with SIGKILL, like a crash; returns its pid."""
        return self.platform.supervisor.kill(name)

    def wait_healthy(self, *names: str, deadline: timedelta = RECOVERY_DEADLINE) -> None:
        """Waits until these programs, or all, are healthy."""
        self.platform.wait_healthy(names, deadline)


@pytest.fixture(scope="session")
def traces() -> Iterator[TraceReceiver]:
    """The receiver of the whole platform's traces."""
    receiver = TraceReceiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest, traces: TraceReceiver) -> Iterator[WholePlatform]:
    """All engines and services in a temporary home. They export traces, and tests do not wait for the limit of unauthenticated requests."""
    broker = request.config.getoption("--kafka")
    environment = {**traces.environment(), "VESTA_GATEWAY_UNAUTHENTICATED_REQUESTS_PER_SECOND": "1000"}
    with running_platform(block=1, broker=broker, environment=environment) as whole:
        yield WholePlatform(whole)
        _keep_logs_of_failure(request.session, whole.home)


def _keep_logs_of_failure(session: pytest.Session, home: Home) -> None:
    """Copies the logs of a home to a folder that outlives it, and prints its path, if a test of the session failed."""
    if session.testsfailed:
        folder = Path(tempfile.mkdtemp(prefix="vesta-test-logs-"))
        shutil.copytree(home.logs, folder, dirs_exist_ok=True)
        sys.stderr.write(f"a test failed; the logs of its programs are in {folder}\n")


@contextmanager
def running_platform(
    block: int,
    only: tuple[str, ...] = (),
    broker: str = BROKERS[0],
    replicas: int = 1,
    other_checkout: Path | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    engines: Settings | None = None,
) -> Iterator[Platform]:
    """Runs a platform, or a part of it, in a temporary home.

    Args:
        environment: environment variables for its programs.
        engines: the external engines; read from the environment (VESTA_LOCAL_…) if None. Everything created in them is deleted afterwards.
    """
    folder = scratch_folder()
    home = Home(folder, ports(block))
    name = f"vesta-test-{new_id()}"
    given = engines or Settings()
    external_engines.choose(home, external_engines.apart(given, name) if given.external else given)
    home.choose_broker(broker)
    home.choose_replicas(replicas)
    if other_checkout:
        home.choose_other_checkout(other_checkout)
    platform = Platform(home, only, bound=True)
    try:
        with pytest.MonkeyPatch.context() as ours:
            for variable, value in environment.items():
                ours.setenv(variable, value)
            platform.up()
        yield platform
    finally:
        platform.down()
        if given.external:
            external_engines.remove(external_engines.of(home), name)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(engines: Platform) -> str:
    """The URL of the database, which always contains the password."""
    settings = admin_settings(engines.home)
    parts, password = urlsplit(settings.postgres_url), settings.postgres_password.get_secret_value()
    if not password:
        return settings.postgres_url
    return parts._replace(netloc=f"{parts.username}:{quote(password, safe='')}@{parts.hostname}:{parts.port}").geturl()


@pytest.fixture
def postgres_schema(postgres_url: str) -> Iterator[str]:
    """The name of a new schema, which is dropped afterwards."""
    with new_schema(postgres_url) as name:
        yield name


@contextmanager
def new_schema(url: str) -> Iterator[str]:
    """Yields the name of a new schema, and drops it afterwards."""
    name = f"test_{new_id()}"
    yield name
    _drop_schemas(url, name)


def _drop_schemas(url: str, prefix: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s)", (prefix,)
        ).fetchall()
        for (name,) in rows:
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


@pytest.fixture
def kafka_bootstrap(engines: Platform) -> str:
    """HOST:PORT of the broker."""
    return admin_settings(engines.home).kafka_bootstrap


@pytest.fixture
def kafka_broker(engines: Platform, kafka_bootstrap: str) -> Broker:  # noqa: ARG001 - marks the test as one that uses events
    """The connection to the broker, with its capabilities."""
    return addresses.broker(engines.home)


@pytest.fixture
def kafka_topic_prefix(engines: Platform) -> str:
    """The prefix of this test's topics."""
    return f"{admin_settings(engines.home).kafka_topic_prefix}test-{new_id()}."


@pytest.fixture
def create_topics(engines: Platform, kafka_topic_prefix: str) -> Callable[..., None]:
    """Creates topics of this test by their names in the catalogue; all topics if no name is given."""
    settings = admin_settings(engines.home).model_copy(update={"kafka_topic_prefix": kafka_topic_prefix})
    known = {topic.name: topic for topic in topics()}

    def create(*names: str, partitions: int = 1) -> None:
        requested = [known[name] for name in names or known]
        broker.create_topics(settings, [replace(topic, partitions=partitions) for topic in requested])

    return create


@pytest.fixture
def objects_settings(engines: Platform) -> dict[str, Any]:
    """The settings of the object store, with a key prefix of this test."""
    settings = _shared(engines, "s3_")
    return {**settings, "s3_prefix": f"{settings['s3_prefix']}test-{new_id()}/"}


def _shared(engines: Platform, prefix: str) -> dict[str, Any]:
    """Returns the engine settings whose names begin with the prefix, with secrets unwrapped."""
    return {
        name: external_engines.plain(value) for name, value in admin_settings(engines.home) if name.startswith(prefix)
    }


@pytest.fixture
def service_settings(
    postgres_url: str,
    postgres_schema: str,
    objects_settings: dict[str, Any],
    engines: Platform,
    kafka_topic_prefix: str,
) -> Callable[[str], dict[str, Any]]:
    """Returns the settings that every service has, by service: `Settings(**service_settings("annotation"), …)`."""

    def settings(service: str) -> dict[str, Any]:
        return {
            "postgres_url": postgres_url,
            "postgres_schema": f"{postgres_schema}_{service}",
            **_shared(engines, "kafka_"),
            "kafka_topic_prefix": kafka_topic_prefix,
            **identity_settings(service),
            **objects_settings,
        }

    return settings

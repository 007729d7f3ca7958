"""Creates everything in the engines that the services need. Idempotent."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import psycopg
import structlog
from kafka.errors import KafkaError
from vesta_common.errors import FailedPrecondition, NotFound, Unavailable
from vesta_common.settings import environment_name
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import address_of

from vesta_admin import broker, database
from vesta_admin.catalogue import topics
from vesta_admin.counts import Difference, check_counts
from vesta_admin.settings import Settings

T = TypeVar("T")

RETRY_INTERVAL = timedelta(seconds=1)
REPOSITORY_KEY = ".repository"

log = structlog.get_logger()


class EngineError(RuntimeError):
    """An engine does not respond in time, or rejects a request. The message names it and suggests a fix."""


def set_up(settings: Settings) -> list[str]:
    """Creates the database, the extensions, the bucket, Triton's prefix and the topics; returns what was created.

    Raises:
        EngineError: an engine does not respond in time, or rejects a request.
    """
    return [*set_up_database(settings), *set_up_objects(settings), *set_up_topics(settings)]


def set_up_database(settings: Settings) -> list[str]:
    """Creates the database and its extensions. Raises EngineError."""
    return _retry("PostgreSQL", "POSTGRES_URL", settings, lambda: database.create_database(address_of(settings)))


def set_up_objects(settings: Settings) -> list[str]:
    """Creates the bucket, and an object below the prefix of Triton's repository. Raises EngineError."""
    return _retry("the object store", "S3_ENDPOINT_URL", settings, lambda: _create_bucket(settings))


def set_up_topics(settings: Settings) -> list[str]:
    """Creates the topics of the catalogue. Raises EngineError."""
    if not settings.kafka_bootstrap:
        raise EngineError("no broker is configured; set KAFKA_BOOTSTRAP to HOST:PORT of Kafka")
    created = _retry("Kafka", "KAFKA_BOOTSTRAP", settings, lambda: broker.create_topics(settings, topics()))
    return [f"topic {name}" for name in created]


def migrate(settings: Settings, *, post: bool) -> list[str]:
    """Applies the migrations of all services; returns those applied. See `database.migrate`. Raises EngineError."""
    return _retry("PostgreSQL", "POSTGRES_URL", settings, lambda: database.migrate(address_of(settings), post=post))


def check(settings: Settings, *, repair: bool) -> list[Difference]:
    """Compares the counts of datasets with their rows; returns the differences. See `counts.check_counts`. Raises EngineError."""
    return _retry("PostgreSQL", "POSTGRES_URL", settings, lambda: check_counts(address_of(settings), repair=repair))


def _create_bucket(settings: Settings) -> list[str]:
    store = ObjectStore.of(settings)
    created = [f"bucket {settings.s3_bucket}"] if store.ensure_bucket() else []
    key = f"{settings.triton_prefix}/{REPOSITORY_KEY}"
    if not store.exists(key):
        store.put_named(key, b"here")
        created.append(f"object {key}")
    return created


def _retry(engine: str, setting: str, settings: Settings, work: Callable[[], T]) -> T:
    """Runs `work`, and retries it until `wait_seconds` have passed while the engine does not respond."""
    deadline = time.monotonic() + settings.wait_seconds
    reported = ""
    while True:
        try:
            return work()
        except (psycopg.OperationalError, Unavailable, KafkaError, OSError) as error:
            reason = str(error).strip() or type(error).__name__
            variable = environment_name(type(settings), setting)
            if time.monotonic() + RETRY_INTERVAL.total_seconds() > deadline:
                raise EngineError(
                    f"{engine} does not respond after {settings.wait_seconds} s: {reason}. Check "
                    f"{variable}, and that it is running"
                ) from error
        except (RuntimeError, FailedPrecondition, NotFound) as error:
            raise EngineError(f"{engine} rejects the request: {error}") from error
        if reason != reported:
            log.warning("engine_unavailable", engine=engine, error=reason)
            reported = reason
        time.sleep(RETRY_INTERVAL.total_seconds())

"""External engines of a home: stores their connection settings, and removes what tests created in them."""

import json
from contextlib import closing
from urllib.parse import urlsplit

import psycopg
from kafka import KafkaAdminClient
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr
from vesta_admin.database import MAINTENANCE_DATABASE
from vesta_common.events.broker import Broker
from vesta_common.storage.objects import open_client
from vesta_common.storage.postgres import address_of

from vesta_local.home import Home
from vesta_local.secret_files import write_secret
from vesta_local.settings import EVENTS, INFERENCE, OBJECTS, POSTGRES, Settings

_REQUEST_TIMEOUT_MS = 5000


def of(home: Home) -> Settings:
    """Returns the settings of a home's external engines, as last chosen."""
    path = home.run / "engines.json"
    return Settings(**json.loads(path.read_text())) if path.exists() else NONE


def choose(home: Home, settings: Settings) -> None:
    """Stores which engines of a home are external, and their connection settings.

    Raises:
        RuntimeError: the home has been started with other engines, which contain its data.
    """
    known = of(home).external
    if home.was_started and settings.external != known:
        own = ", ".join(sorted({POSTGRES, OBJECTS, EVENTS, INFERENCE} - known)) or "none"
        raise RuntimeError(
            f"{home.root} was started with the external engines {', '.join(sorted(known)) or 'none'} and its own engines {own}, which "
            "contain its data; use another home (VESTA_HOME), or the same engines (VESTA_LOCAL_…)"
        )
    write_secret(home.run / "engines.json", json.dumps({name: plain(value) for name, value in settings}))


def plain(value: object) -> object:
    """Returns a setting's value; unwraps secrets."""
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def apart(settings: Settings, name: str) -> Settings:
    """Returns settings for a database, a bucket, topics and groups that are separate from others on the same engines.

    With an external Triton, the bucket stays the same, because it contains Triton's repository; keys get a prefix.

    Args:
        name: lower-case letters, digits and hyphens.
    """
    update: dict[str, str] = {"kafka_topic_prefix": f"{settings.kafka_topic_prefix}{name}."}
    if POSTGRES in settings.external:
        update["postgres_url"] = urlsplit(settings.postgres_url)._replace(path=f"/{name}").geturl()
    if INFERENCE in settings.external:
        update["s3_prefix"] = f"{settings.s3_prefix}{name}/"
    else:
        update["s3_bucket"] = name
    return settings.model_copy(update=update)


def remove(settings: Settings, name: str) -> None:
    """Removes what was created with the settings that `apart` returned for this name.

    Raises:
        psycopg.Error, BotoCoreError, ClientError, KafkaError: an engine does not respond, or rejects the request.
    """
    if POSTGRES in settings.external:
        with psycopg.connect(
            make_conninfo(address_of(settings), dbname=MAINTENANCE_DATABASE), autocommit=True
        ) as server:
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
    if OBJECTS in settings.external:
        _remove_objects(settings, whole_bucket=settings.s3_bucket == name)
    if EVENTS in settings.external:
        _remove_topics(settings)


def _remove_objects(settings: Settings, *, whole_bucket: bool) -> None:
    store = open_client(settings)
    if settings.s3_bucket not in {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}:
        return
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=settings.s3_bucket, Prefix=settings.s3_prefix)
    for keys in [[{"Key": entry["Key"]} for entry in page.get("Contents", ())] for page in pages]:
        if keys:
            store.delete_objects(Bucket=settings.s3_bucket, Delete={"Objects": keys, "Quiet": True})
    if whole_bucket:
        store.delete_bucket(Bucket=settings.s3_bucket)


def _remove_topics(settings: Settings) -> None:
    prefix = settings.kafka_topic_prefix
    options = {**Broker.of(settings).access, "request_timeout_ms": _REQUEST_TIMEOUT_MS, "client_id": "vesta-local"}
    with closing(KafkaAdminClient(**options)) as admin:
        topics = [topic for topic in admin.list_topics() if topic.startswith(prefix)]
        if topics:
            admin.delete_topics(topics)
        groups = [group["group_id"] for group in admin.list_groups() if group["group_id"].startswith(prefix)]
        if groups:
            admin.delete_groups(groups)


NONE = Settings.model_construct()

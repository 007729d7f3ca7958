"""API keys in PostgreSQL. Only the digest of a secret is stored."""

from datetime import UTC, datetime, timedelta
from typing import Any

from vesta_common.clock import Clock
from vesta_common.messages import set_times
from vesta_common.resources.methods import missing
from vesta_common.resources.pages import Page
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.gateway.v1 import ApiKey

from vesta_gateway.access.caller import Caller
from vesta_gateway.store.names import found, ids_of, member_name, taken
from vesta_gateway.store.statements import queries

TOUCH_INTERVAL = timedelta(minutes=1)


def insert(
    connection: Connection, project: str, api_key_id: str, api_key: ApiKey, secret_sha256: bytes, now: datetime
) -> ApiKey:
    """Adds a key. The returned message does not contain the secret.

    Raises:
        AlreadyExists: the id is taken.
    """
    row = queries.insert_api_key(
        connection,
        project=project,
        api_key=api_key_id,
        member=ids_of(api_key.member)[1],
        display_name=api_key.display_name,
        secret_sha256=secret_sha256,
        prefix=api_key.prefix,
        expire_time=api_key.expire_time.ToDatetime(UTC) if api_key.HasField("expire_time") else None,
        now=now,
    )
    if row is None:
        raise taken(f"projects/{project}/apiKeys/{api_key_id}")
    return _api_key(row)


def get(connection: Connection, name: str) -> ApiKey:
    """Returns a key without its secret.

    Raises:
        NotFound: the key does not exist.
    """
    project, api_key = ids_of(name)
    return _api_key(found(queries.find_api_key(connection, project=project, api_key=api_key), name))


def list_page(connection: Connection, project: str, page: Page) -> tuple[list[ApiKey], str]:
    """Returns a page of keys by name, and the token of the next page."""
    rows = list(queries.list_api_keys(connection, project=project, after=page.after, limit=page.limit))
    page_rows, token = page.cut(rows, lambda row: (row["api_key"],))
    return [_api_key(row) for row in page_rows], token


def delete(connection: Connection, name: str) -> None:
    """Deletes a key.

    Raises:
        NotFound: the key does not exist.
    """
    project, api_key = ids_of(name)
    if not queries.delete_api_key(connection, project=project, api_key=api_key):
        raise missing(name, reason="NOT_FOUND")


def find_caller(postgres: Postgres, secret_sha256: bytes, clock: Clock) -> Caller | None:
    """Returns the caller of a key by the digest of its secret; None if unknown. Records the use, at most once a minute."""
    with postgres.transaction() as connection:
        row = queries.find_caller(connection, secret_sha256=secret_sha256)
        if row is None:
            return None
        now = clock.now()
        if row["last_use_time"] is None or row["last_use_time"] < now - TOUCH_INTERVAL:
            queries.touch_api_key(connection, project=row["project"], api_key=row["api_key"], now=now)
    return Caller(
        key=f"projects/{row['project']}/apiKeys/{row['api_key']}",
        project=f"projects/{row['project']}",
        member=member_name(row["project"], row["member"]),
        role=row["role"],
        expire_time=row["expire_time"],
    )


def _api_key(row: dict[str, Any]) -> ApiKey:
    api_key = ApiKey(
        name=f"projects/{row['project']}/apiKeys/{row['api_key']}",
        display_name=row["display_name"],
        member=member_name(row["project"], row["member"]),
        prefix=row["prefix"],
    )
    set_times(api_key, row, "expire_time", "last_use_time", "create_time")
    return api_key

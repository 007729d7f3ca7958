"""Members and API keys in PostgreSQL."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from vesta_common.clock import Clock
from vesta_common.errors import AlreadyExists, FailedPrecondition
from vesta_common.messages import set_times
from vesta_common.resources import idempotency
from vesta_common.resources.etags import with_etag
from vesta_common.resources.methods import existing, missing
from vesta_common.resources.pages import Page
from vesta_common.storage.postgres import Connection, Postgres, load_queries
from vesta_contracts.gateway.v1 import ApiKey, Member, Role

from vesta_gateway.access.caller import OWNER_ID, Caller

TOUCH_INTERVAL = timedelta(minutes=1)
PRUNE_BATCH_MAX = 1_000
"""Batch size for deletions, so that no transaction holds locks for long."""

log = structlog.get_logger()

queries = load_queries("vesta_gateway")


def member_name(project: str, member: str) -> str:
    """Returns a member's resource name: `projects/acme/members/ada`."""
    return f"projects/{project}/members/{member}"


def ids_of(name: str) -> tuple[str, str]:
    """Returns the project id and the resource id of a name with four segments."""
    _, project, _, own = name.split("/")
    return project, own


def insert_member(connection: Connection, project: str, member_id: str, member: Member, now: datetime) -> Member:
    """Adds a member.

    Raises:
        AlreadyExists: the id is taken.
    """
    row = queries.insert_member(
        connection, project=project, member=member_id, display_name=member.display_name, role=member.role, now=now
    )
    if row is None:
        raise _taken(member_name(project, member_id))
    return _member(row)


def add_first_owner(postgres: Postgres, project_name: str, clock: Clock) -> None:
    """Adds the member `owner` to a project without members."""
    project = project_name.split("/")[1]
    with postgres.transaction() as connection:
        queries.insert_first_owner(connection, project=project, member=OWNER_ID, role=Role.ROLE_OWNER, now=clock.now())


def has_members(postgres: Postgres, project_name: str) -> bool:
    """Returns True if the project has members."""
    with postgres.transaction() as connection:
        return bool(queries.has_members(connection, project=project_name.split("/")[1]))


def close_project(postgres: Postgres, project_name: str, clock: Clock) -> None:
    """Deletes a project's members and keys, and marks the project as closed, so that it gets no new ones."""
    project = project_name.split("/")[1]
    with postgres.transaction() as connection:
        queries.close_project(connection, project=project, now=clock.now())
        queries.delete_members(connection, project=project)


def closed_projects(postgres: Postgres) -> set[str]:
    """Returns the names of the closed projects."""
    with postgres.transaction() as connection:
        return {f"projects/{row['project']}" for row in queries.list_closed_projects(connection)}


def projects_with_members(postgres: Postgres) -> list[str]:
    """Returns the names of the projects with members."""
    with postgres.transaction() as connection:
        return [f"projects/{row['project']}" for row in queries.list_projects_with_members(connection)]


def get_member(connection: Connection, name: str) -> Member:
    """Returns a member.

    Raises:
        NotFound: the member does not exist.
    """
    project, member = ids_of(name)
    return _member(_found(queries.find_member(connection, project=project, member=member), name))


def list_members(connection: Connection, project: str, page: Page) -> tuple[list[Member], str]:
    """Returns a page of members by name, and the token of the next page."""
    rows = list(queries.list_members(connection, project=project, after=page.after, limit=page.limit))
    kept, token = page.cut(rows, lambda row: (row["member"],))
    return [_member(row) for row in kept], token


def lock_member(connection: Connection, name: str) -> Member:
    """Returns a member and locks all members of its project until the transaction ends.

    Raises:
        NotFound: the member does not exist.
    """
    project, member = ids_of(name)
    rows = {row["member"]: row for row in queries.lock_members(connection, project=project)}
    return _member(_found(rows.get(member), name))


def update_member(connection: Connection, member: Member, now: datetime) -> Member:
    """Writes the mutable fields of a locked member.

    Raises:
        FailedPrecondition: LAST_OWNER, the project would have no owner.
    """
    project, own = ids_of(member.name)
    if member.role != Role.ROLE_OWNER:
        _check_other_owner(connection, project, own)
    row = queries.update_member(
        connection, project=project, member=own, display_name=member.display_name, role=member.role, now=now
    )
    return _member(row)


def delete_member(connection: Connection, name: str) -> None:
    """Deletes a member and its keys.

    Raises:
        NotFound: the member does not exist.
        FailedPrecondition: LAST_OWNER, the project would have no owner.
    """
    lock_member(connection, name)
    project, own = ids_of(name)
    _check_other_owner(connection, project, own)
    queries.delete_member(connection, project=project, member=own)


def insert_api_key(
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
        raise _taken(f"projects/{project}/apiKeys/{api_key_id}")
    return _api_key(row)


def get_api_key(connection: Connection, name: str) -> ApiKey:
    """Returns a key without its secret.

    Raises:
        NotFound: the key does not exist.
    """
    project, api_key = ids_of(name)
    return _api_key(_found(queries.find_api_key(connection, project=project, api_key=api_key), name))


def list_api_keys(connection: Connection, project: str, page: Page) -> tuple[list[ApiKey], str]:
    """Returns a page of keys by name, and the token of the next page."""
    rows = list(queries.list_api_keys(connection, project=project, after=page.after, limit=page.limit))
    kept, token = page.cut(rows, lambda row: (row["api_key"],))
    return [_api_key(row) for row in kept], token


def delete_api_key(connection: Connection, name: str) -> None:
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


def prune_request_log(
    postgres: Postgres,
    now: datetime,
    retention: timedelta,
    *,
    batch_max: int = PRUNE_BATCH_MAX,
    is_stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Deletes requests older than `retention` in batches, each in its own transaction. Returns the number of deleted entries. Blocks.

    Args:
        is_stopping: checked before each batch; True ends the deletion early.
    """
    deleted, batch = 0, batch_max
    while batch == batch_max and not is_stopping():
        with postgres.transaction() as connection:
            batch = idempotency.prune(connection, now, retention, batch_max)
        deleted += batch
    if deleted:
        log.info("request_log_pruned", count=deleted)
    return deleted


def _check_other_owner(connection: Connection, project: str, own: str) -> None:
    """Checks that `own` is not the only owner of a project. The project's members must be locked."""
    owners = {
        row["member"] for row in queries.lock_members(connection, project=project) if row["role"] == Role.ROLE_OWNER
    }
    if owners == {own}:
        name = member_name(project, own)
        raise FailedPrecondition(
            f"{name} is the last owner; make another member an owner first",
            reason="LAST_OWNER",
            metadata={"name": name},
        )


def _member(row: dict[str, Any]) -> Member:
    member = Member(
        name=member_name(row["project"], row["member"]),
        display_name=row["display_name"],
        role=row["role"],
    )
    set_times(member, row, "create_time", "update_time")
    return with_etag(member)


def _api_key(row: dict[str, Any]) -> ApiKey:
    api_key = ApiKey(
        name=f"projects/{row['project']}/apiKeys/{row['api_key']}",
        display_name=row["display_name"],
        member=member_name(row["project"], row["member"]),
        prefix=row["prefix"],
    )
    set_times(api_key, row, "expire_time", "last_use_time", "create_time")
    return api_key


def _found(row: dict[str, Any] | None, name: str) -> dict[str, Any]:
    return existing(row, name, reason="NOT_FOUND")


def _taken(name: str) -> AlreadyExists:
    return AlreadyExists(f"{name} exists already; choose another id", reason="ALREADY_EXISTS", metadata={"name": name})

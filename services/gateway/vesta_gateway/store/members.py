"""Members of projects in PostgreSQL."""

from datetime import datetime
from typing import Any

from vesta_common.clock import Clock
from vesta_common.errors import FailedPrecondition
from vesta_common.messages import set_times
from vesta_common.resources.etags import with_etag
from vesta_common.resources.pages import Page
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.gateway.v1 import Member, Role

from vesta_gateway.access.caller import OWNER_ID
from vesta_gateway.store.names import found, ids_of, member_name, taken
from vesta_gateway.store.statements import queries


def insert(connection: Connection, project: str, member_id: str, member: Member, now: datetime) -> Member:
    """Adds a member.

    Raises:
        AlreadyExists: the id is taken.
    """
    row = queries.insert_member(
        connection, project=project, member=member_id, display_name=member.display_name, role=member.role, now=now
    )
    if row is None:
        raise taken(member_name(project, member_id))
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


def get(connection: Connection, name: str) -> Member:
    """Returns a member.

    Raises:
        NotFound: the member does not exist.
    """
    project, member = ids_of(name)
    return _member(found(queries.find_member(connection, project=project, member=member), name))


def list_page(connection: Connection, project: str, page: Page) -> tuple[list[Member], str]:
    """Returns a page of members by name, and the token of the next page."""
    rows = list(queries.list_members(connection, project=project, after=page.after, limit=page.limit))
    page_rows, token = page.cut(rows, lambda row: (row["member"],))
    return [_member(row) for row in page_rows], token


def lock(connection: Connection, name: str) -> Member:
    """Returns a member and locks all members of its project until the transaction ends.

    Raises:
        NotFound: the member does not exist.
    """
    project, member = ids_of(name)
    rows = {row["member"]: row for row in queries.lock_members(connection, project=project)}
    return _member(found(rows.get(member), name))


def update(connection: Connection, member: Member, now: datetime) -> Member:
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


def delete(connection: Connection, name: str) -> None:
    """Deletes a member and its keys.

    Raises:
        NotFound: the member does not exist.
        FailedPrecondition: LAST_OWNER, the project would have no owner.
    """
    lock(connection, name)
    project, own = ids_of(name)
    _check_other_owner(connection, project, own)
    queries.delete_member(connection, project=project, member=own)


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

"""The names of members and API keys, and the errors that name them."""

from typing import Any

from vesta_common.errors import AlreadyExists
from vesta_common.resources.methods import existing


def member_name(project: str, member: str) -> str:
    """Returns a member's resource name: `projects/acme/members/ada`."""
    return f"projects/{project}/members/{member}"


def ids_of(name: str) -> tuple[str, str]:
    """Returns the project id and the resource id of a name with four segments."""
    _, project, _, own = name.split("/")
    return project, own


def found(row: dict[str, Any] | None, name: str) -> dict[str, Any]:
    return existing(row, name, reason="NOT_FOUND")


def taken(name: str) -> AlreadyExists:
    return AlreadyExists(f"{name} already exists; choose another id", reason="ALREADY_EXISTS", metadata={"name": name})

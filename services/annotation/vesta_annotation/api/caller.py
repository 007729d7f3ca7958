"""The calling member, their role and what they may see."""

from vesta_common import trace
from vesta_common.errors import PermissionDenied, Unauthenticated
from vesta_contracts.annotation.v1 import Task

_ANSWERING_ROLE = "annotator"
_REVIEWING_ROLES = ("reviewer", "engineer", "owner")
_LAST_RESORT_ROLE = "owner"


def calling_member() -> str:
    """Returns the name of the calling member, such as `projects/acme/members/ada`.

    Raises:
        Unauthenticated: the caller is not a member.
    """
    caller = trace.caller()
    if "/members/" not in caller:
        raise Unauthenticated(
            "tasks can only be leased by members; use an API key of a member", reason="CALLER_UNKNOWN"
        )
    return caller


def check_may_review() -> None:
    """Checks that the caller's role may review.

    Raises:
        PermissionDenied: ROLE_TOO_LOW.
    """
    if trace.role() not in _REVIEWING_ROLES:
        raise PermissionDenied(
            f"reviews require one of the roles {', '.join(_REVIEWING_ROLES)}; ask an owner of the project",
            reason="ROLE_TOO_LOW",
        )


def visible_annotator(task: Task) -> str:
    """Returns the annotator whose answers the caller may see; empty if the caller may see all answers.

    Annotators see only their own answers while a task is open, so that annotators answer independently.
    """
    return calling_member() if task.state == Task.OPEN and is_annotator() else ""


def is_annotator() -> bool:
    """Whether the caller has the annotator role."""
    return trace.role() == _ANSWERING_ROLE


def is_last_resort() -> bool:
    """Whether the caller may review their own answers: only an owner may, who can be the only member of a project."""
    return trace.role() == _LAST_RESORT_ROLE

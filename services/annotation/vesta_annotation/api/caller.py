"""The calling member: their name, and what their role may see and review."""

from vesta_common import trace
from vesta_common.errors import PermissionDenied, Unauthenticated
from vesta_contracts.annotation.v1 import Task

_ANNOTATOR_ROLE = "annotator"
_REVIEWER_ROLES = ("reviewer", "engineer", "owner")
_SELF_REVIEWING_ROLE = "owner"


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
    if trace.role() not in _REVIEWER_ROLES:
        raise PermissionDenied(
            f"reviews require one of the roles {', '.join(_REVIEWER_ROLES)}; ask an owner of the project",
            reason="ROLE_TOO_LOW",
        )


def visible_annotator(task: Task) -> str:
    """Returns the annotator whose answers the caller may see; empty if the caller may see all answers.

    Annotators see only their own answers while a task is open, so that annotators answer independently.
    """
    return calling_member() if task.state == Task.OPEN and is_annotator() else ""


def is_annotator() -> bool:
    """Whether the caller has the annotator role."""
    return trace.role() == _ANNOTATOR_ROLE


def may_review_own_answers() -> bool:
    """Whether the caller may review their own answers: only an owner may, because an owner can be the only member of a project."""
    return trace.role() == _SELF_REVIEWING_ROLE

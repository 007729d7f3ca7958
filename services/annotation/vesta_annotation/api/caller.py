"""Who is asking, and what they may see."""

from vesta_common import trace
from vesta_common.errors import PermissionDenied, Unauthenticated
from vesta_contracts.annotation.v1 import Task

_ANSWERING_ROLE = "annotator"
_REVIEWING_ROLES = ("reviewer", "engineer", "owner")
_LAST_RESORT_ROLE = "owner"


def calling_member() -> str:
    """The name of whoever calls, such as `projects/acme/members/ada`.

    Raises:
        Unauthenticated: no member calls.
    """
    caller = trace.caller()
    if "/members/" not in caller:
        raise Unauthenticated("tasks are handed to members; come with an API key", reason="CALLER_UNKNOWN")
    return caller


def check_may_review() -> None:
    """Accepts a caller whose role lets them decide.

    Raises:
        PermissionDenied: ROLE_TOO_LOW.
    """
    if trace.role() not in _REVIEWING_ROLES:
        raise PermissionDenied(
            f"reviews are for these roles: {', '.join(_REVIEWING_ROLES)}; ask an owner for one", reason="ROLE_TOO_LOW"
        )


def visible_annotator(task: Task) -> str:
    """The one whose answers the caller may see; empty for everybody's.

    Annotators see only their own while a task waits for answers: two that agree are to have come to it by themselves.
    """
    return calling_member() if task.state == Task.OPEN and is_annotator() else ""


def is_annotator() -> bool:
    """Whether the caller's role is to answer, and no more."""
    return trace.role() == _ANSWERING_ROLE


def is_last_resort() -> bool:
    """Whether the caller may review even answers of their own: the owner, who may be all the people there are."""
    return trace.role() == _LAST_RESORT_ROLE

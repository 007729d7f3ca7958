"""Defines which service may call which other service, and with which member roles. Pure.

The network policies of the Helm chart and the addresses of the local platform are derived from the same table.
"""

from collections.abc import Mapping

from google.protobuf.message import Message

from vesta_common.errors import PermissionDenied

PEERS: Mapping[str, tuple[str, ...]] = {
    "connection": ("datasets",),
    "datasets": ("connection",),
    "annotation": ("datasets",),
    "training": ("datasets", "serving"),
    "serving": ("datasets", "training"),
    "pipelining": ("serving", "connection"),
    "conductor": ("datasets", "annotation", "training", "serving", "connection", "pipelining"),
    "gateway": ("connection", "datasets", "annotation", "training", "serving", "pipelining", "conductor"),
}
"""The services that each service calls."""
_ROLE_AUTHORITIES = frozenset({"gateway", "conductor"})
_RESTRICTING_ROLES = frozenset({"", "annotator"})
"""Roles that any service may assert, because they grant no more than a call without a role; an annotator sees less."""


def audience_of(method: str) -> str:
    """Returns the service of a gRPC method: `datasets` for `/vesta.datasets.v1.ItemService/GetItem`; empty for methods outside Vesta."""
    parts = method.lstrip("/").split(".")
    return parts[1] if len(parts) > 2 and parts[0] == "vesta" else ""


def may_assert(service: str, role: str) -> bool:
    """Returns True if the service may assert that it calls on behalf of a member with this role."""
    return role in _RESTRICTING_ROLES or service in _ROLE_AUTHORITIES


def check_call(service: str, audience: str, role: str) -> None:
    """Checks that the table allows a call.

    Raises:
        PermissionDenied: CALLER_NOT_ALLOWED, ROLE_NOT_ALLOWED.
    """
    if audience not in PEERS.get(service, ()):
        raise PermissionDenied(
            f"{service} may not call {audience}; allowed callers: {', '.join(sorted(_callers_of(audience))) or 'none'}",
            reason="CALLER_NOT_ALLOWED",
            metadata={"service": service, "audience": audience},
        )
    if not may_assert(service, role):
        raise PermissionDenied(
            f"{service} may not assert the role {role!r}; only {' and '.join(sorted(_ROLE_AUTHORITIES))} may",
            reason="ROLE_NOT_ALLOWED",
            metadata={"service": service, "role": role},
        )


def check_project(project: str, request: Message) -> None:
    """Checks that the requested resource is in the project of the token. A token without a project is valid for all projects.

    Raises:
        PermissionDenied: PROJECT_NOT_ALLOWED.
    """
    for field in ("parent", "name") if project else ():
        value = getattr(request, field, "")
        is_elsewhere = (
            isinstance(value, str) and value.startswith("projects/") and not f"{value}/".startswith(f"{project}/")
        )
        if is_elsewhere:
            raise PermissionDenied(
                f"the token of this call is for {project}, but {field} is {value}; use a token for that project",
                reason="PROJECT_NOT_ALLOWED",
                metadata={"project": project},
            )


def project_of_caller(caller: str) -> str:
    """Returns `projects/acme` for `projects/acme/members/ada`; empty for services and the platform owner."""
    parts = caller.split("/")
    return "/".join(parts[:2]) if parts[0] == "projects" and len(parts) > 2 else ""


def _callers_of(audience: str) -> list[str]:
    return [service for service, peers in PEERS.items() if audience in peers]

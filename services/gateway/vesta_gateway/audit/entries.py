"""Defines which calls are recorded in the audit log, and the content of an entry. Pure."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Any

from google.protobuf.message import DecodeError, Message

from vesta_gateway.access.caller import Caller, role_word
from vesta_gateway.contracts.methods import Rpc
from vesta_gateway.store.audit_entries import AuditRow

READ_ONLY_POSTS = frozenset(
    {
        "vesta.serving.v1.DeploymentService.Predict",
        "vesta.datasets.v1.ItemService.SearchItems",
        "vesta.datasets.v1.ItemService.SelectItems",
    }
)
"""RPCs that change nothing although they use POST over HTTP."""
DENIED_CODES = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED"})
RESPONSE_BYTES_MAX = 64 * 1024
TEXT_CHARACTERS_MAX = 1024
PATHS_MAX = 64


@dataclass(frozen=True)
class Origin:
    """The origin of a call.

    Attributes:
        address: the client's address without port.
        protocol: the protocol, `rest` or `grpc`.
    """

    address: str
    protocol: str


def is_recorded(rpc: Rpc, code: str) -> bool:
    """Returns True for calls that may have changed something, whatever their outcome, and for calls rejected by access control."""
    return code in DENIED_CODES or not (rpc.only_reads or rpc.full_name in READ_ONLY_POSTS)


def row_of(
    rpc: Rpc,
    caller: Caller | None,
    request: Message | None,
    response: bytes,
    outcome: tuple[str, str],
    origin: Origin,
    entry_id: str,
    now: datetime,
    request_id: str,
) -> AuditRow:
    """Returns the audit log row of a call.

    Args:
        caller: None for an unknown API key.
        request: the request, or the first message of a request stream; None if the call was rejected before it was read.
        response: the serialized response; empty if there is none or the response is a stream.
        outcome: the gRPC status name, and the reason of an error.
    """
    code, reason = outcome
    requested = _resource_in_request(rpc, request) if request is not None else ""
    resource = (_resource_in_response(rpc, response) if code == "OK" else "") or requested
    project = _project_of(requested or resource) or (caller.project if caller else "")
    raw = request.SerializeToString(deterministic=True) if request is not None else b""
    return AuditRow(
        id=entry_id,
        create_time=now,
        project=project.removeprefix("projects/"),
        caller=caller.acting_in(_project_of(requested)) if caller else "",
        api_key=caller.key if caller else "",
        role=role_word(caller.role) if caller else "",
        method=rpc.full_name,
        resource=_text(resource),
        update_mask=_paths(request),
        request_sha256=hashlib.sha256(raw).hexdigest() if request is not None else "",
        code=code,
        reason=_text(reason),
        address=_text(origin.address),
        protocol=origin.protocol,
        request_id=request_id,
    )


def _resource_in_request(rpc: Rpc, request: Message) -> str:
    """Returns the resource name in the request: that of the scope field, or `name`."""
    path = rpc.scope or ("name" if "name" in request.DESCRIPTOR.fields_by_name else "")
    return str(reduce(getattr, path.split("."), request)) if path else ""


def _resource_in_response(rpc: Rpc, response: bytes) -> str:
    """Returns the resource name in a response."""
    if "name" not in rpc.descriptor.output_type.fields_by_name or not 0 < len(response) <= RESPONSE_BYTES_MAX:
        return ""
    try:
        return str(getattr(rpc.response_type.FromString(response), "name", ""))
    except DecodeError:
        return ""


def _project_of(name: str) -> str:
    parts = name.split("/")
    return "/".join(parts[:2]) if len(parts) >= 2 and parts[0] == "projects" else ""


def _paths(request: Any) -> list[str]:
    """Returns the paths of the update mask."""
    if request is None or "update_mask" not in request.DESCRIPTOR.fields_by_name:
        return []
    return [_text(path) for path in request.update_mask.paths[:PATHS_MAX]]


def _text(text: str) -> str:
    """Removes NUL, which PostgreSQL cannot store, and truncates the text."""
    return text.replace("\x00", "")[:TEXT_CHARACTERS_MAX]

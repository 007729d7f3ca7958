"""Transcodes between HTTP with JSON and protobuf messages, according to `google.api.http`. Pure.

Bodies are JSON, or, for performance, protobuf (`application/x-protobuf`) of the same message.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

from google.api import field_behavior_pb2
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from vesta_common.errors import InvalidArgument, Violation

from vesta_gateway.contracts.methods import find_field, is_map
from vesta_gateway.rest.query import query_to_json
from vesta_gateway.rest.routes import Match

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
WHOLE = "*"
DEPTH_MAX = 64
_MASK = "update_mask"
_NOT_IN_MASKS = frozenset({"name", "etag"})
_PARSE_STEP = re.compile(r"Failed to parse (\S+) field: ")


def read_request(match: Match, query: str, body: bytes, content_type: str) -> Message:
    """Converts an HTTP request to a request message.

    Args:
        query: the query string without `?`, percent-encoded.
        content_type: without parameters; empty for JSON.

    Raises:
        InvalidArgument: the message names the field that does not exist or cannot be parsed.
    """
    descriptor, rule = match.rpc.descriptor.input_type, match.rule
    request = match.rpc.request_type()
    mask: list[str] | None = None
    if rule.body and content_type == PROTOBUF:
        mask = _read_protobuf(request, rule.body, body)
    elif rule.body:
        mask = _read_json(request, rule.body, body)
    elif body.strip():
        raise InvalidArgument(
            "this method has no request body; send its fields as query parameters", reason="BODY_NOT_ALLOWED"
        )
    _read_query(request, descriptor, match, query)
    for field_path, text in match.captured.items():
        _set_text(request, field_path, text)
    if rule.verb == "PATCH" and mask is not None and _MASK in descriptor.fields_by_name and not request.HasField(_MASK):
        request.update_mask.paths.extend(mask)  # type: ignore[attr-defined]
    return request


def read_upload(match: Match, query: str, content_type: str) -> Message:
    """Returns the first message of an upload, without the bytes of its HttpBody.

    Raises:
        InvalidArgument: as `read_request`.
    """
    request = match.rpc.request_type()
    _read_query(request, match.rpc.descriptor.input_type, match, query)
    for field_path, text in match.captured.items():
        _set_text(request, field_path, text)
    getattr(request, match.rule.body).content_type = content_type
    return request


def read_fields(match: Match, pairs: Iterable[tuple[str, str]], taken: Collection[str]) -> Message:
    """Returns a request message with the fields from the path, and others from names and values.

    Args:
        taken: fields and field paths that the path or the body contains.

    Raises:
        InvalidArgument: as `read_request`.
    """
    request = match.rpc.request_type()
    _parse(query_to_json(match.rpc.descriptor.input_type, pairs, taken), request, "")
    for field_path, text in match.captured.items():
        _set_text(request, field_path, text)
    return request


def write_json(message: Message) -> bytes:
    """Converts a message to JSON with lowerCamelCase names. Default values are included, so an absent field is unset."""
    as_json = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return json.dumps(as_json, ensure_ascii=False, separators=(",", ":")).encode()


def _read_protobuf(request: Message, body_field: str, body: bytes) -> list[str]:
    target = request if body_field == WHOLE else getattr(request, body_field)
    try:
        target.MergeFromString(body)
    except DecodeError as error:
        raise InvalidArgument(
            f"the body is not a valid {target.DESCRIPTOR.full_name}", reason="BODY_MALFORMED"
        ) from error
    target.DiscardUnknownFields()
    if body_field != WHOLE:
        target.SetInParent()
    return [field.name for field, _ in target.ListFields() if _is_masked(field)]


def _read_json(request: Message, body_field: str, body: bytes) -> list[str]:
    try:
        value = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the body is not valid JSON: {error}", reason="BODY_MALFORMED") from error
    if body_field == WHOLE:
        _parse(value, request, "")
        return []
    target = getattr(request, body_field)
    target.SetInParent()
    _parse(value, target, body_field)
    return list(_present(target.DESCRIPTOR, value))


def _read_query(request: Message, descriptor: Descriptor, match: Match, query: str) -> None:
    if not query:
        return
    pairs = parse_qsl(query, keep_blank_values=True)
    if match.rule.body == WHOLE and pairs:
        raise InvalidArgument(
            f"unknown query parameter {pairs[0][0]!r}; send the fields of this method in the body",
            reason="QUERY_INVALID",
            violations=[Violation(pairs[0][0], "must be in the body")],
        )
    bound_fields = {*match.captured, match.rule.body}
    given = type(request)()
    _parse(query_to_json(descriptor, pairs, bound_fields), given, "")
    request.MergeFrom(given)


def _parse(value: Any, target: Message, prefix: str) -> None:
    """Parses JSON into a message.

    Raises:
        InvalidArgument: FIELD_UNKNOWN or FIELD_MALFORMED, with the path of the field.
    """
    if not isinstance(value, dict):
        raise InvalidArgument("the body must be a JSON object", reason="BODY_MALFORMED")
    try:
        json_format.ParseDict(value, target, max_recursion_depth=DEPTH_MAX)
    except (json_format.ParseError, RecursionError, ValueError, TypeError) as error:
        unknown = next(_unknown(target.DESCRIPTOR, value, prefix), "")  # type: ignore[arg-type]
        if unknown:
            path, why, reason = unknown, "is not a field of this method", "FIELD_UNKNOWN"
        else:
            path, cause = _malformed(str(error), prefix)
            why, reason = f"cannot be read: {cause}", "FIELD_MALFORMED"
        message = f"{path or 'the request'} {why}"
        raise InvalidArgument(message, reason=reason, violations=[Violation(path, why)]) from error


def _malformed(error_text: str, prefix: str) -> tuple[str, str]:
    """Extracts the field path and the cause from an error message of protobuf's JSON parser."""
    steps = [prefix] if prefix else []
    why = error_text.split("\n", 1)[0]
    while step := _PARSE_STEP.match(why):
        steps.append(step[1])
        why = why[step.end() :]
    return ".".join(steps), why.rstrip(".")


def _unknown(descriptor: Descriptor, value: Any, path: str) -> Iterator[str]:
    """Yields the paths of fields in a JSON value that the message does not have."""
    if not isinstance(value, dict) or descriptor.full_name.startswith("google.protobuf."):
        return
    for name, inner in value.items():
        subpath = f"{path}.{name}" if path else name
        field = find_field(descriptor, name)
        if field is None:
            yield subpath
        elif field.message_type is not None and not is_map(field):
            entries: Iterable[Any] = inner if field.is_repeated and isinstance(inner, list) else [inner]
            for index, entry in enumerate(entries):
                yield from _unknown(field.message_type, entry, f"{subpath}[{index}]" if field.is_repeated else subpath)


def _present(descriptor: Descriptor, value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields the update mask that changes exactly the fields in a JSON object (AIP-134): its leaves, without immutable fields."""
    for name, inner in value.items():
        field = find_field(descriptor, name)
        if field is None or not (prefix or _is_masked(field)):
            continue
        submessage = None if field.is_repeated else field.message_type
        if (
            submessage is None
            or submessage.full_name.startswith("google.protobuf.")
            or not (isinstance(inner, dict) and inner)
        ):
            yield prefix + field.name
        else:
            yield from _present(submessage, inner, f"{prefix}{field.name}.")


def _is_masked(field: Any) -> bool:
    """Returns False for names, etags and output-only fields. Clients may send them back without effect (AIP-203)."""
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field.name not in _NOT_IN_MASKS and field_behavior_pb2.OUTPUT_ONLY not in behaviors


def _set_text(request: Message, field_path: str, text: str) -> None:
    """Sets a field from the path."""
    *parents, last = field_path.split(".")
    target: Any = request
    for part in parents:
        target = getattr(target, part)
    setattr(target, last, text)

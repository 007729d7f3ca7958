"""Conversion of fields on the command line to the JSON object of a message and to an update mask. Pure."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_NOT_IN_MASKS = frozenset({"name", "etag"})


def read_fields(message: Descriptor, fields: Sequence[str], body: str | None) -> dict[str, Any]:
    """Returns the JSON object of a body with `key=value` fields, which override the body.

    Raises:
        ValueError: a field or the body is malformed; the message names it.
    """
    resource = json.loads(body) if body else {}
    if not isinstance(resource, dict):
        raise ValueError(f"--body must be a JSON object, not {body}")  # noqa: TRY004 - somebody typed it
    for field in fields:
        set_field(resource, field, message)
    return resource


def set_field(resource: dict[str, Any], field: str, message: Descriptor) -> None:
    """Sets `a.b=value` in the JSON object of a message. Values of string fields stay strings."""
    path, equals, value = field.partition("=")
    if not equals:
        raise ValueError(f"{field!r} must be KEY=VALUE")
    *parents, last = path.split(".")
    parent_message: Descriptor | None = message
    for parent in parents:
        field_of_parent = find_field(parent_message, parent)
        parent_message = field_of_parent.message_type if field_of_parent else None
        existing_value = resource.setdefault(parent, {})
        resource = existing_value if isinstance(existing_value, dict) else _raise_is_set(field, parent)
    known = find_field(parent_message, last)
    if known and known.cpp_type == FieldDescriptor.CPPTYPE_STRING and not known.is_repeated:
        resource[last] = value
        return
    try:
        resource[last] = json.loads(value)
    except json.JSONDecodeError:
        resource[last] = value


def mask_of(message: Descriptor, given: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Returns the paths of the fields in a JSON object (AIP-134): its leaves without name and etag."""
    for name, value in given.items():
        field = find_field(message, name)
        if field is None or (not prefix and field.name in _NOT_IN_MASKS):
            continue
        submessage = None if field.is_repeated else field.message_type
        if (
            submessage is None
            or submessage.full_name.startswith("google.protobuf.")
            or not (isinstance(value, dict) and value)
        ):
            yield prefix + field.name
        else:
            yield from mask_of(submessage, value, f"{prefix}{field.name}.")


def find_field(message: Descriptor | None, name: str) -> FieldDescriptor | None:
    """Returns a field by its name in the contract or in JSON."""
    fields = message.fields if message else ()
    return next((field for field in fields if name in (field.name, field.json_name)), None)


def _raise_is_set(field: str, parent: str) -> NoReturn:
    raise ValueError(f"{field!r} cannot be set: {parent} already has a value")

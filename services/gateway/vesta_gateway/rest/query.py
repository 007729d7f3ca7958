"""Converts query parameters to the JSON of a request: dots for nested fields, repetition for lists, `metadata[key]=value` for maps.

Names may be proto names or JSON names. Values are text; booleans and enum numbers are converted.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from vesta_common.errors import InvalidArgument, Violation

from vesta_gateway.contracts.methods import find_field, is_map, map_value

PARAMETERS_MAX = 1000
# Messages whose JSON is a single string, so that a parameter can contain them.
TEXT_MESSAGES = frozenset(
    f"google.protobuf.{name}"
    for name in ("Timestamp", "Duration", "FieldMask", "StringValue", "Int64Value", "BytesValue")
)
_MAP_ENTRY = re.compile(r"([^\[\]]+)\[(.*)\]")
_BOOLEANS = {"true": True, "false": False}


def query_to_json(
    descriptor: Descriptor, pairs: Iterable[tuple[str, str]], bound_fields: Collection[str]
) -> dict[str, Any]:
    """Returns the JSON object for query parameters, keyed by proto names.

    Args:
        descriptor: the request descriptor.
        pairs: names and values, decoded, in order.
        bound_fields: fields and field paths that the path or the body contains.

    Raises:
        InvalidArgument: a parameter is unknown, conflicts with another value, or cannot be parsed.
    """
    root: dict[str, Any] = {}
    for count, (name, text) in enumerate(pairs, 1):
        if count > PARAMETERS_MAX:
            raise InvalidArgument(
                f"the request has more than {PARAMETERS_MAX} query parameters", reason="QUERY_TOO_LONG"
            )
        _add(descriptor, root, name, text, bound_fields)
    return root


def _add(descriptor: Descriptor, root: dict[str, Any], name: str, text: str, bound_fields: Collection[str]) -> None:
    entry = _MAP_ENTRY.fullmatch(name)
    *parents, last = (entry[1] if entry else name).split(".")
    target, path = root, ""
    for part in parents:
        field = _field(descriptor, part, name)
        if field.message_type is None or field.is_repeated:
            raise _invalid(name, "has no subfields")
        descriptor, path = field.message_type, f"{path}{field.name}."
        target = target.setdefault(field.name, {})
    field = _field(descriptor, last, name)
    path += field.name
    if path in bound_fields or path.split(".")[0] in bound_fields:
        raise _invalid(name, "is already set by the path or the body")
    if is_map(field):
        if not entry:
            raise _invalid(name, f"is a map; use {name}[KEY]=VALUE")
        target.setdefault(field.name, {})[entry[2]] = _value(map_value(field), text, name)
    elif entry:
        raise _invalid(name, "is no map")
    elif field.is_repeated:
        target.setdefault(field.name, []).append(_value(field, text, name))
    elif field.name in target:
        raise _invalid(name, "is given twice")
    else:
        target[field.name] = _value(field, text, name)


def _field(descriptor: Descriptor, part: str, name: str) -> FieldDescriptor:
    field = find_field(descriptor, part)
    if field is None:
        raise _invalid(name, "is not a parameter of this method")
    return field


def _value(field: FieldDescriptor, text: str, name: str) -> Any:
    """Returns the JSON value of a parameter."""
    if field.message_type is not None and field.message_type.full_name not in TEXT_MESSAGES:
        raise _invalid(name, "cannot be a parameter; use its subfields")
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if text not in _BOOLEANS:
            raise _invalid(name, "must be true or false")
        return _BOOLEANS[text]
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM and text.lstrip("-").isdecimal():
        return int(text)
    return text


def _invalid(name: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"the query parameter {name!r} {why}", reason="QUERY_INVALID", violations=[Violation(name, why)]
    )

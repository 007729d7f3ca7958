"""The resource names in a request, wherever they stand: what must lie in the caller's own project.

A name is what a field says is one (`google.api.resource_reference`) or what has the shape of one. Values of `map<string, string>` are the
customer's own facts and are let be; so is text that merely contains a name.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from google.api import resource_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from vesta_gateway.contracts import is_map, map_value

_NAME = re.compile(r"projects/([^/\s]+)(/[^/\s]+)*")
_PREFIX = "projects/"

Find = Callable[[Any], Iterator[str]]


def projects_in(message: Message) -> set[str]:
    """The projects whose resources a message names, as `projects/acme`. A declared reference that is in no project gives itself."""
    find = _finder(message.DESCRIPTOR)
    return set(find(message)) if find else set()


@cache
def _finder(descriptor: Descriptor) -> Find | None:
    """What finds the projects in messages of a type; None where such messages hold no text."""
    return _compile(descriptor, {})


def _compile(descriptor: Descriptor, under_way: dict[str, list[Find]]) -> Find | None:
    if descriptor.full_name in under_way:  # a recursive type: its finder is complete by the time it is used
        finders = under_way[descriptor.full_name]
        return lambda message: (project for find in finders for project in find(message))
    finders = under_way[descriptor.full_name] = []
    finders.extend(find for field in descriptor.fields if (find := _field_finder(field, under_way)))
    if not finders:
        return None

    def find_all(message: Any) -> Iterator[str]:
        for find in finders:
            yield from find(message)

    return find_all


def _field_finder(field: FieldDescriptor, under_way: dict[str, list[Find]]) -> Find | None:
    name = field.name
    if is_map(field):
        return _map_finder(field, under_way)
    if field.message_type is not None:
        below = _compile(field.message_type, under_way)
        if below is None:
            return None
        if field.is_repeated:
            return lambda message: (project for entry in getattr(message, name) for project in below(entry))
        return lambda message: below(getattr(message, name)) if message.HasField(name) else iter(())
    if field.type != FieldDescriptor.TYPE_STRING:
        return None
    is_reference = bool(field.GetOptions().Extensions[resource_pb2.resource_reference].type)
    if field.is_repeated:
        return lambda message: (p for text in getattr(message, name) if (p := _project_in(text, is_reference)))
    return lambda message: (p,) if (p := _project_in(getattr(message, name), is_reference)) else ()  # type: ignore[return-value]


def _map_finder(field: FieldDescriptor, under_way: dict[str, list[Find]]) -> Find | None:
    value = map_value(field)
    below = _compile(value.message_type, under_way) if value.message_type is not None else None
    if below is None:
        return None
    return lambda message: (p for entry in getattr(message, field.name).values() for p in below(entry))


def _project_in(text: str, is_reference: bool) -> str:
    """The project that a text names; empty where it is no name."""
    if text.startswith(_PREFIX):
        parts = text.split("/", 2)
        if is_reference or _NAME.fullmatch(text):
            return f"{_PREFIX}{parts[1]}"
        return ""
    return text if is_reference else ""

"""Finds the resource names in a request. Each name must be well-formed and in the caller's project.

Text is a resource name if its field is declared as one (`google.api.resource_reference`), if it has the form of one, or if a filter
compares with it. Values of `map<string, string>` are the customer's own data and are not checked; nor is text that merely contains a name.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

from google.api import resource_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from vesta_common.resources.filters import values_of
from vesta_common.resources.names import check_name

from vesta_gateway.contracts.methods import is_map, map_value

_NAME = re.compile(r"projects/([^/\s]+)(/[^/\s]+)*")
_PREFIX = "projects/"
_FILTER = "filter"


class Reference(NamedTuple):
    """A resource name in a request.

    Attributes:
        field: the field that contains it.
        project: the project of the name, such as `projects/acme`. For a declared reference outside of projects, the name itself. Empty for
            names in filters, because a filter finds nothing outside its project.
        is_declared: whether the field is declared as a resource reference; otherwise the text only has the form of a name.
    """

    field: str
    name: str
    project: str
    is_declared: bool


Find = Callable[[Any], Iterator[Reference]]


def references_in(message: Message) -> list[Reference]:
    """Returns the resource names in a message."""
    find = _finder(message.DESCRIPTOR)
    return list(find(message)) if find else []


def projects_in(message: Message) -> set[str]:
    """Returns the projects of the resource names in a message."""
    return projects_of(references_in(message))


def projects_of(references: list[Reference]) -> set[str]:
    """Returns the projects of resource names."""
    return {reference.project for reference in references if reference.project}


def check_references(references: list[Reference]) -> None:
    """Checks that declared references are well-formed. Text that only has the form of a name is not checked.

    Raises:
        InvalidArgument: INVALID_NAME, with the field and the segment.
    """
    for reference in references:
        if reference.is_declared:
            check_name(reference.name, reference.field)


@cache
def _finder(descriptor: Descriptor) -> Find | None:
    """Returns the function that finds names in messages of a type; None if they contain no text."""
    return _compile(descriptor, {})


def _compile(descriptor: Descriptor, under_way: dict[str, list[Find]]) -> Find | None:
    if descriptor.full_name in under_way:  # a recursive type: its finder is complete when it is first called
        finders = under_way[descriptor.full_name]
        return lambda message: (reference for find in finders for reference in find(message))
    finders = under_way[descriptor.full_name] = []
    finders.extend(find for field in descriptor.fields if (find := _field_finder(field, under_way)))
    if not finders:
        return None

    def find_all(message: Any) -> Iterator[Reference]:
        for find in finders:
            yield from find(message)

    return find_all


def _field_finder(field: FieldDescriptor, under_way: dict[str, list[Find]]) -> Find | None:
    name = field.name
    if is_map(field):
        return _map_finder(field, under_way)
    if field.message_type is not None:
        finder = _compile(field.message_type, under_way)
        if finder is None:
            return None
        if field.is_repeated:
            return lambda message: (reference for entry in getattr(message, name) for reference in finder(entry))
        return lambda message: finder(getattr(message, name)) if message.HasField(name) else iter(())
    if field.type != FieldDescriptor.TYPE_STRING:
        return None
    if name == _FILTER and not field.is_repeated:
        return lambda message: _names_in_filter(getattr(message, name))
    is_declared = bool(field.GetOptions().Extensions[resource_pb2.resource_reference].type)
    if field.is_repeated:
        return lambda message: (r for text in getattr(message, name) if (r := _reference(name, text, is_declared)))
    return lambda message: (r,) if (r := _reference(name, getattr(message, name), is_declared)) else ()  # type: ignore[return-value]


def _map_finder(field: FieldDescriptor, under_way: dict[str, list[Find]]) -> Find | None:
    value = map_value(field)
    finder = _compile(value.message_type, under_way) if value.message_type is not None else None
    if finder is None:
        return None
    return lambda message: (r for entry in getattr(message, field.name).values() for r in finder(entry))


def _names_in_filter(text: str) -> Iterator[Reference]:
    """Yields the names that a filter compares with. A filter that is itself a name is treated like other text of that form."""
    if reference := _reference(_FILTER, text, is_declared=False):
        return iter((reference,))
    return (Reference(_FILTER, value, "", True) for value in values_of(text) if value.startswith(_PREFIX))


def _reference(field: str, text: str, is_declared: bool) -> Reference | None:
    """Returns the reference if the text is a resource name; otherwise None."""
    if text.startswith(_PREFIX):
        parts = text.split("/", 2)
        if is_declared or _NAME.fullmatch(text):
            return Reference(field, text, f"{_PREFIX}{parts[1]}", is_declared)
        return None
    return Reference(field, text, text, True) if is_declared and text else None

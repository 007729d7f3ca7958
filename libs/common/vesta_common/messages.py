"""Helpers for protobuf messages: copies and timestamps. Pure."""

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


def copy_of(message: M, **fields: Any) -> M:
    """Returns a deep copy of a message with the given scalar fields set."""
    copy = type(message)()
    copy.CopyFrom(message)
    for field, value in fields.items():
        setattr(copy, field, value)
    return copy


def without(message: M, *fields: str) -> M:
    """Returns a deep copy of a message without the given fields, for example those that have database columns."""
    copy = copy_of(message)
    for field in fields:
        copy.ClearField(field)
    return copy


def set_times(message: Message, row: Mapping[str, Any], *fields: str) -> None:
    """Sets timestamp fields from the columns of the same names. A NULL column leaves its field unset."""
    for field in fields:
        if row[field] is not None:
            getattr(message, field).FromDatetime(row[field])

"""Copies of messages and their times: what every service does between requests, rows and answers. Pure."""

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


def copy_of(message: M, **fields: Any) -> M:
    """A copy that shares nothing with the message, with these plain fields set, such as its name."""
    copy = type(message)()
    copy.CopyFrom(message)
    for field, value in fields.items():
        setattr(copy, field, value)
    return copy


def without(message: M, *fields: str) -> M:
    """A copy that lacks these fields, such as those that a row has columns for."""
    copy = copy_of(message)
    for field in fields:
        copy.ClearField(field)
    return copy


def set_times(message: Message, row: Mapping[str, Any], *fields: str) -> None:
    """Sets timestamps from the columns of the same names; an empty column leaves its field unset."""
    for field in fields:
        if row[field] is not None:
            getattr(message, field).FromDatetime(row[field])

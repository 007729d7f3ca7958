"""Reads a request without copying the files in it.

The outline of a serialized message is the message with each large field of type `bytes` replaced by `PLACEHOLDER`. A request with a file of
megabytes has an outline of a few hundred bytes, and the contents of its large fields are parts of the serialized message.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

LARGE_BYTES = 32 * 1024
"""Fields of at least this size are large."""
FIELDS_MAX = 1000
"""A message with more fields is read completely, because reading each in Python would take longer than copying them."""
PLACEHOLDER = os.urandom(16)
"""Random, so that no field of a request has this value."""
_contents: ContextVar[Sequence[memoryview]] = ContextVar("contents", default=())
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES_MAX = 10


class Outline(NamedTuple):
    """A message without its large fields.

    Attributes:
        message: the message, with `PLACEHOLDER` as the value of each large field.
        contents: the contents of the large fields, in the order of the message.
    """

    message: Message
    contents: Sequence[memoryview]


def find_outline(kind: type[Message], serialized: bytes) -> Outline | None:
    """Returns the outline of a serialized message; None if the message has no large field, has too many fields, or is not exactly as the
    protobuf runtime serializes it. A message that contains unknown fields has therefore no outline.
    """
    if len(serialized) < LARGE_BYTES:
        return None
    scan, message = _Scan(), kind()
    try:
        short = b"".join(scan.parts(message.DESCRIPTOR, memoryview(serialized)))  # type: ignore[arg-type]
        message.MergeFromString(short)
    except (_NotOutlined, DecodeError):
        return None
    message.DiscardUnknownFields()
    if not scan.contents or message.SerializeToString(deterministic=True) != short:
        return None
    return Outline(message, scan.contents)


def contents() -> Sequence[memoryview]:
    """Returns the contents of the large fields of the request, or of the message of a request stream, that is being handled; empty if it is
    not an outline.
    """
    return _contents.get()


@contextmanager
def handling(outline: Outline) -> Iterator[Message]:
    """Yields the message of an outline, whose contents are those of the block."""
    token = _contents.set(outline.contents)
    try:
        yield outline.message
    finally:
        _contents.reset(token)


@contextmanager
def handling_stream(outlines: Iterable[Outline]) -> Iterator[Iterator[Message]]:
    """Yields the messages of a request stream. In the block, `contents` returns those of the last message."""

    def messages() -> Iterator[Message]:
        for outline in outlines:
            _contents.set(outline.contents)
            yield outline.message

    token = _contents.set(())
    try:
        yield messages()
    finally:
        _contents.reset(token)


def serialize_field(kind: Descriptor, path: Sequence[str], content: bytes | memoryview) -> list[bytes | memoryview]:
    """Returns the parts of a serialized field that is nested in others, with a reference to its content instead of a copy.

    Args:
        kind: the message type.
        path: the names of the fields, from the outermost to the one with the content; all but the last are messages.
        content: the octets.
    """
    name, *names = path
    field = kind.fields_by_name[name]
    inner = serialize_field(field.message_type, names, content) if names and field.message_type else [content]
    return [_varint(field.number << 3 | _LENGTH) + _varint(sum(map(len, inner))), *inner]


class _NotOutlined(Exception):
    """The message is read completely instead."""


class _Scan:
    """Scans the wire format of one message (https://protobuf.dev/programming-guides/encoding)."""

    def __init__(self) -> None:
        self.contents: list[memoryview] = []
        self._field_count = 0

    def parts(self, descriptor: Descriptor, serialized: memoryview) -> Iterator[bytes | memoryview]:
        """Yields the parts of the short message."""
        position = 0
        while position < len(serialized):
            self._field_count += 1
            if self._field_count > FIELDS_MAX:
                raise _NotOutlined
            tag, body = _read_varint(serialized, position)
            if tag & 7 != _LENGTH:
                end = _end_of(serialized, tag & 7, body)
                yield serialized[position:end]
            else:
                size_bytes, start = _read_varint(serialized, body)
                end = start + size_bytes
                field = descriptor.fields_by_number.get(tag >> 3)
                if size_bytes < LARGE_BYTES or field is None:
                    yield serialized[position:end]
                elif field.type == FieldDescriptor.TYPE_BYTES:
                    self.contents.append(serialized[start:end])
                    yield from (serialized[position:body], _varint(len(PLACEHOLDER)), PLACEHOLDER)
                elif field.message_type is not None:
                    short = b"".join(self.parts(field.message_type, serialized[start:end]))
                    yield from (serialized[position:body], _varint(len(short)), short)
                else:
                    yield serialized[position:end]
            if end > len(serialized):
                raise _NotOutlined
            position = end


def _end_of(serialized: memoryview, wire_type: int, position: int) -> int:
    """Returns the end of a number."""
    if wire_type == _VARINT:
        return _read_varint(serialized, position)[1]
    if wire_type in (_FIXED32, _FIXED64):
        return position + (4 if wire_type == _FIXED32 else 8)
    raise _NotOutlined


def _read_varint(serialized: memoryview, position: int) -> tuple[int, int]:
    """Returns a number and the position after it."""
    value = 0
    for index, octet in enumerate(serialized[position : position + _VARINT_BYTES_MAX]):
        value |= (octet & 0x7F) << 7 * index
        if octet < 0x80:
            return value, position + index + 1
    raise _NotOutlined


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)

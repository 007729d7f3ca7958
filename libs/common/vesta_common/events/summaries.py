"""Reduction of the payloads of events about large resources. Pure."""

from collections.abc import Iterator
from typing import TypeVar

from google.protobuf.message import Message

from vesta_common.events.outbox import EVENT_BYTES_MAX
from vesta_common.messages import copy_of

M = TypeVar("M", bound=Message)


def summarised(payload: M, bytes_max: int = EVENT_BYTES_MAX) -> M:
    """Returns a payload without its largest lists and maps if it exceeds the limit of an event; otherwise the payload itself.

    For events about a resource that consumers can read by its name. Texts are kept, so that the result can still be too large.
    """
    if payload.ByteSize() <= bytes_max:
        return payload
    summary = copy_of(payload)
    for _, message, field in sorted(_lists(summary), key=lambda entry: -entry[0]):
        message.ClearField(field)
        if summary.ByteSize() <= bytes_max:
            break
    return summary


def _lists(message: Message) -> Iterator[tuple[int, Message, str]]:
    """Yields the size in bytes of each list and map of a message and its nested messages, with the message and the field."""
    for field, value in message.ListFields():
        if field.is_repeated:
            alone = type(message)()
            getattr(alone, field.name).MergeFrom(value)
            yield alone.ByteSize(), message, field.name
        elif field.message_type:
            yield from _lists(value)

"""Decodes records: separates events that the consumer handles from irrelevant and invalid records."""

from collections.abc import Callable, Set
from typing import Any

from vesta_common.errors import InvalidArgument
from vesta_common.events.cloudevents import Event, decode

Check = Callable[[Event], None]
"""Raises InvalidArgument for an event that its publisher is not allowed to send."""


class InvalidRecord(Exception):
    """An invalid record: not an event, or an event that its publisher is not allowed to send. The message is the reason."""


class Reader:
    """Decodes and checks records.

    Args:
        types: the event types that the consumer handles. Records that declare other types are skipped without decoding.
    """

    def __init__(self, types: Set[str], check: Check | None = None) -> None:
        self._types = types
        self._check = check

    def read(self, record: Any) -> Event | None:
        """Returns the event of a record, or None if the consumer does not handle its type.

        Raises:
            InvalidRecord: the record is not an event, or failed the check.
        """
        kind = header(record, "ce_type")
        if kind and kind not in self._types:
            return None
        try:
            event = decode(record.headers, record.value, record.key)
            if self._check is not None:
                self._check(event)
        except InvalidArgument as error:
            raise InvalidRecord(f"{error.reason}: {error}") from error
        return event


def header(record: Any, name: str) -> str:
    """Returns the last header with this name, which takes precedence, or an empty string."""
    value: bytes = next((value for key, value in reversed(record.headers) if key == name and value is not None), b"")
    return value.decode(errors="replace")


def describe(record: Any) -> dict[str, Any]:
    """Returns the log fields of a record. Works for invalid records too."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "event_id": header(record, "ce_id"),
        "type": header(record, "ce_type"),
        "subject": (record.key or b"").decode(errors="replace"),
    }

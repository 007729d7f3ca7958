"""Tells records that are events for us from those that are not, and from poison."""

from collections.abc import Callable, Set
from typing import Any

from vesta_common.errors import InvalidArgument
from vesta_common.events.cloudevents import Event, decode

Check = Callable[[Event], None]
"""Raises InvalidArgument for an event that others had no right to send."""


class Poison(Exception):
    """A record that is no event, or one that nobody had a right to send. The message is the reason. No fault of ours."""


class Reader:
    """Reads records.

    Args:
        types: the event types that are ours; records that say they are of others are not looked at any closer.
    """

    def __init__(self, types: Set[str], check: Check | None = None) -> None:
        self._types = types
        self._check = check

    def read(self, record: Any) -> Event | None:
        """The record's event; None where it is not for us.

        Raises:
            Poison: it is no event, or did not pass the check.
        """
        kind = header(record, "ce_type")
        if kind and kind not in self._types:
            return None
        try:
            event = decode(record.headers, record.value, record.key)
            if self._check is not None:
                self._check(event)
        except InvalidArgument as error:
            raise Poison(f"{error.reason}: {error}") from error
        return event


def header(record: Any, name: str) -> str:
    """The last header of this name, which is the one that counts; an empty string where there is none."""
    found: bytes = next((value for key, value in reversed(record.headers) if key == name and value is not None), b"")
    return found.decode(errors="replace")


def describe(record: Any) -> dict[str, Any]:
    """What a log line says of a record, whatever it holds."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "event_id": header(record, "ce_id"),
        "type": header(record, "ce_type"),
        "subject": (record.key or b"").decode(errors="replace"),
    }

"""Events: CloudEvents 1.0 in Kafka's binary mode, with a protobuf message as value.

The type follows from the message and back: `vesta.annotation.v1.TaskAccepted` is `vesta.annotation.task.v1.accepted` on the topic
`vesta.annotation.task.v1`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from vesta_common import trace
from vesta_common.errors import InvalidArgument
from vesta_common.ids import new_id

CONTENT_TYPE = "application/protobuf"
_TYPE = re.compile(r"vesta\.([a-z]+)\.([a-z_]+)\.v1\.([a-z_]+)")
# Words that end an event's name although they have two parts.
_COMPOUND = ("RolledBack",)

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Event:
    """A fact.

    Attributes:
        id: unique; a repeat bears the same one.
        type: `vesta.annotation.task.v1.accepted`.
        source: who published it, `services/annotation`.
        subject: the resource it is about; also the Kafka key, so that a resource's events stay in order.
        time: when it happened.
        payload: the message.
        carrier: the trace it belongs to.
    """

    id: str
    type: str
    source: str
    subject: str
    time: datetime
    payload: Any
    carrier: dict[str, str]

    @property
    def topic(self) -> str:
        """The topic that the event is published on."""
        return topic_of(self.type)


def topic_of(event_type: str) -> str:
    """The type without its last word."""
    return event_type.rpartition(".")[0]


def new_event(service: str, subject: str, payload: Message, now: datetime) -> Event:
    """An event that tells of `payload`, within the current trace."""
    return Event(new_id(), type_of(payload), f"services/{service}", subject, now, payload, trace.carrier())


def type_of(payload: Message) -> str:
    """The event type of a message.

    Raises:
        ValueError: the message is not named resource + past participle.
    """
    _, service, version, name = payload.DESCRIPTOR.full_name.split(".")
    words = re.findall(r"[A-Z][a-z0-9]*", name)
    cut = next((len(re.findall("[A-Z]", end)) for end in _COMPOUND if name.endswith(end)), 1)
    if len(words) <= cut:
        raise ValueError(f"{name} is not named resource + past participle")
    return f"vesta.{service}.{'_'.join(words[:-cut]).lower()}.{version}.{'_'.join(words[-cut:]).lower()}"


def message_class_of(event_type: str) -> type[Message]:
    """The message of an event type.

    Raises:
        InvalidArgument: there is none.
    """
    import vesta_contracts.everything  # noqa: F401 - registers the messages of every service

    found = _TYPE.fullmatch(event_type)
    if found:
        service, resource, what = found.groups()
        name = "".join(word.title() for word in f"{resource}_{what}".split("_"))
        try:
            return message_factory.GetMessageClass(
                descriptor_pool.Default().FindMessageTypeByName(f"vesta.{service}.v1.{name}")
            )
        except KeyError:
            pass
    raise InvalidArgument(f"{event_type!r} is no known event type", reason="EVENT_UNKNOWN")


def encode_headers(event: Event) -> Headers:
    """The Kafka headers of an event."""
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": event.id,
        "ce_type": event.type,
        "ce_source": event.source,
        "ce_subject": event.subject,
        "ce_time": event.time.astimezone(UTC).isoformat(),
        "content-type": CONTENT_TYPE,
        **event.carrier,
    }
    return [(key, value.encode()) for key, value in attributes.items()]


def decode_attributes(headers: Sequence[tuple[str, bytes]]) -> dict[str, str]:
    """The CloudEvents attributes and other headers of a record.

    Raises:
        InvalidArgument: one is missing or is not text.
    """
    try:
        found = {key: value.decode() for key, value in headers if value is not None}
    except UnicodeDecodeError as error:
        raise InvalidArgument("a header is not UTF-8", reason="EVENT_MALFORMED") from error
    missing = [key for key in ("ce_id", "ce_type", "ce_source", "ce_time") if not found.get(key)]
    if missing:
        raise InvalidArgument(f"the record is no CloudEvent: it lacks {', '.join(missing)}", reason="EVENT_MALFORMED")
    return found


def decode_time(text: str) -> datetime:
    """`ce_time` as an aware time.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgument(f"ce_time {text!r} is no RFC 3339 time", reason="EVENT_MALFORMED") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def decode(headers: Sequence[tuple[str, bytes]], value: bytes) -> Event:
    """The event that a record holds.

    Raises:
        InvalidArgument: it holds none; says why.
    """
    found = decode_attributes(headers)
    try:
        payload = message_class_of(found["ce_type"]).FromString(value or b"")
    except DecodeError as error:
        raise InvalidArgument(f"the value is no {found['ce_type']}", reason="EVENT_MALFORMED") from error
    return Event(
        id=found["ce_id"],
        type=found["ce_type"],
        source=found["ce_source"],
        subject=found.get("ce_subject", ""),
        time=decode_time(found["ce_time"]),
        payload=payload,
        carrier={key: found[key] for key in ("traceparent", "tracestate") if key in found},
    )

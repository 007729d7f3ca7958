"""Encodes and decodes events: CloudEvents 1.0 in Kafka's binary mode. The value is a protobuf message or an image.

The event type and the message name map to each other: `vesta.annotation.v1.TaskAccepted` is the type `vesta.annotation.task.v1.accepted`
on the topic `vesta.annotation.task.v1`. Other systems may write to the broker, so every record is validated before use.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from vesta_common import trace
from vesta_common.errors import InvalidArgument
from vesta_common.ids import new_id

CONTENT_TYPE = "application/protobuf"
IMAGE_CONTENT = "image/"
ATTRIBUTE_CHARACTERS_MAX = {"ce_id": 200, "ce_type": 200, "ce_source": 1000, "ce_subject": 1000, "ce_time": 64}
_TYPE = re.compile(r"vesta\.([a-z]+)\.([a-z_]+)\.(v[0-9]+)\.([a-z_]+)")
# Endings of event names that consist of two words.
_COMPOUND = ("RolledBack", "RoundCompleted")

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Event:
    """An event: something that has happened to a resource.

    Attributes:
        id: unique; a duplicate has the same id. At most 200 characters.
        type: for example `vesta.annotation.task.v1.accepted`.
        source: the publishing service, for example `services/annotation`.
        subject: the name of the resource. Also the Kafka key, so that the events of a resource stay in order.
        time: when the event happened.
        payload: the protobuf message; bytes if `content_type` is an image type.
        carrier: the trace context.
    """

    id: str
    type: str
    source: str
    subject: str
    time: datetime
    payload: Any
    carrier: dict[str, str]
    content_type: str = CONTENT_TYPE

    @property
    def value(self) -> bytes:
        """The payload, serialized as the Kafka value."""
        return bytes(self.payload) if self.content_type.startswith(IMAGE_CONTENT) else self.payload.SerializeToString()

    @property
    def topic(self) -> str:
        """The topic that the event is published on."""
        return topic_of(self.type)


def topic_of(event_type: str) -> str:
    """Returns the topic of an event type: the type without its last part."""
    return event_type.rpartition(".")[0]


def new_event(service: str, subject: str, payload: Message, now: datetime) -> Event:
    """Creates an event with the given payload in the current trace context."""
    return new_events(service, [(subject, payload)], now)[0]


def new_events(service: str, payloads: Iterable[tuple[str, Message]], now: datetime) -> list[Event]:
    """Creates events, given as subject and payload, in the current trace context."""
    source, carrier = f"services/{service}", trace.carrier()
    return [
        Event(new_id(), type_of(payload), source, subject, now, payload, carrier.copy())
        for subject, payload in payloads
    ]


def type_of(payload: Message) -> str:
    """Returns the event type of a message.

    Raises:
        ValueError: the message is not named resource + past participle.
    """
    return _type_of_name(payload.DESCRIPTOR.full_name)


@cache
def _type_of_name(full_name: str) -> str:
    _, service, version, name = full_name.split(".")
    words = re.findall(r"[A-Z][a-z0-9]*", name)
    action_length = next((len(re.findall("[A-Z]", end)) for end in _COMPOUND if name.endswith(end)), 1)
    if len(words) <= action_length:
        raise ValueError(f"{name} must be named resource + past participle")
    return f"vesta.{service}.{'_'.join(words[:-action_length]).lower()}.{version}.{'_'.join(words[-action_length:]).lower()}"


def message_class_of(event_type: str) -> type[Message]:
    """Returns the message class of an event type.

    Raises:
        InvalidArgument: EVENT_UNKNOWN, no message class has this type.
    """
    message_class = _find_message_class(event_type)
    if message_class is None:
        raise InvalidArgument(f"unknown event type {event_type!r}", reason="EVENT_UNKNOWN")
    return message_class


def _find_message_class(event_type: str) -> type[Message] | None:
    import vesta_contracts.everything  # noqa: F401 - registers the messages of every service

    match = _TYPE.fullmatch(event_type)
    if match is None:
        return None
    service, resource, version, action = match.groups()
    name = "".join(word.title() for word in f"{resource}_{action}".split("_"))
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(f"vesta.{service}.{version}.{name}")
    except KeyError:
        return None
    return message_factory.GetMessageClass(descriptor)


def encode_headers(event: Event) -> Headers:
    """Returns the Kafka headers of an event."""
    return [(key, value.encode()) for key, value in attributes_of(event).items()]


def attributes_of(event: Event) -> dict[str, str]:
    """Returns the Kafka headers of an event as text."""
    return {
        "ce_specversion": "1.0",
        "ce_id": event.id,
        "ce_type": event.type,
        "ce_source": event.source,
        "ce_subject": event.subject,
        "ce_time": event.time.astimezone(UTC).isoformat(),
        "content-type": event.content_type,
        **event.carrier,
    }


def decode(headers: Sequence[tuple[str, bytes | None]], value: bytes | None, key: bytes | None = None) -> Event:
    """Decodes the event in a Kafka record.

    Raises:
        InvalidArgument: EVENT_MALFORMED or EVENT_UNKNOWN, the record contains no valid event.
    """
    attributes = _attributes(headers)
    content_type = attributes.get("content-type", CONTENT_TYPE)
    if content_type.startswith(IMAGE_CONTENT) and _find_message_class(attributes["ce_type"]):
        raise _malformed(f"the value of {attributes['ce_type']} must be a protobuf message, not {content_type}")
    subject = attributes.get("ce_subject") or _text("the key", key or b"")
    return Event(
        id=_id_of_external_event(attributes, subject)
        if content_type.startswith(IMAGE_CONTENT)
        else attributes["ce_id"],
        type=attributes["ce_type"],
        source=attributes["ce_source"],
        subject=subject,
        time=_time(attributes["ce_time"]),
        payload=(value or b"")
        if content_type.startswith(IMAGE_CONTENT)
        else _message(attributes["ce_type"], value or b""),
        carrier={name: attributes[name] for name in ("traceparent", "tracestate") if name in attributes},
        content_type=content_type,
    )


def _id_of_external_event(attributes: dict[str, str], subject: str) -> str:
    """Derives a globally unique id for events of external publishers, whose ids are unique only within a source (often a counter)."""
    return hashlib.sha256("\n".join((attributes["ce_source"], subject, attributes["ce_id"])).encode()).hexdigest()[:32]


def _attributes(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    """Returns the CloudEvents attributes and other headers. If a name repeats, the last value counts."""
    attributes = {name: _text(name, value) for name, value in headers if value is not None}
    missing = [name for name in ("ce_id", "ce_type", "ce_source", "ce_time") if not attributes.get(name)]
    if missing:
        raise _malformed(f"the record is not a CloudEvent: {', '.join(missing)} missing")
    for name, characters_max in ATTRIBUTE_CHARACTERS_MAX.items():
        if len(attributes.get(name, "")) > characters_max:
            raise _malformed(f"{name} has more than {characters_max} characters")
    return attributes


def _text(name: str, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise _malformed(f"{name} is not UTF-8") from None
    if "\x00" in text:  # PostgreSQL cannot store it
        raise _malformed(f"{name} has a NUL character")
    return text


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise _malformed(f"ce_time {text!r} is not an RFC 3339 time") from None


def _message(event_type: str, value: bytes) -> Message:
    try:
        return message_class_of(event_type).FromString(value)
    except DecodeError:
        raise _malformed(f"the value is not a valid {event_type}") from None


def _malformed(message: str) -> InvalidArgument:
    return InvalidArgument(message, reason="EVENT_MALFORMED")

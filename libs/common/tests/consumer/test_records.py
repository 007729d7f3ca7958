"""Records of others are passed over, and nothing in a record is believed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from vesta_common.errors import InvalidArgument, Unavailable
from vesta_common.events.cloudevents import Event, encode_headers, new_event
from vesta_common.events.consumer.records import InvalidRecord, Reader, describe
from vesta_contracts.annotation.v1 import TaskAccepted, TaskCancelled

ACCEPTED = "vesta.annotation.task.v1.accepted"
KEY = "projects/acme/campaigns/vans/tasks/1"
ACCEPTANCE = new_event("annotation", KEY, TaskAccepted(task=KEY, item="7"), datetime(2026, 1, 1, tzinfo=UTC))
CANCELLATION = new_event("annotation", KEY, TaskCancelled(task=KEY), datetime(2026, 1, 1, tzinfo=UTC))


@dataclass
class Record:
    """As kafka-python gives them."""

    value: bytes | None = b""
    headers: Sequence[tuple[str, bytes | None]] = field(default_factory=list)
    key: bytes | None = KEY.encode()
    topic: str = "task"
    partition: int = 1
    offset: int = 5


def record_of(event: Event, *more: tuple[str, bytes | None]) -> Record:
    return Record(event.value, [*encode_headers(event), *more])


def read(record: Record) -> Event | None:
    return Reader({ACCEPTED}).read(record)


def test_an_event_of_ours_is_read() -> None:
    assert read(record_of(ACCEPTANCE)) == ACCEPTANCE


def test_an_event_of_another_type_is_passed_over_whatever_it_holds() -> None:
    assert read(record_of(CANCELLATION)) is None
    assert read(Record(b"\xff\xff", [("ce_type", b"\xff\xfe")])) is None


@pytest.mark.parametrize(
    "record",
    [
        Record(),
        Record(None, [], None),
        Record(b"hello", [("some", b"header")]),
        Record(b"", [("ce_type", None)]),
        Record(b"", [("ce_type", ACCEPTED.encode())]),
        Record(b"\xff\xff", encode_headers(ACCEPTANCE)),
        record_of(ACCEPTANCE, ("ce_time", b"yesterday")),
        record_of(ACCEPTANCE, ("ce_type", b"")),
    ],
)
def test_what_is_no_event_is_poison(record: Record) -> None:
    with pytest.raises(InvalidRecord, match="EVENT_MALFORMED: "):
        read(record)


def test_of_two_types_the_last_one_counts() -> None:
    assert read(record_of(ACCEPTANCE, ("ce_type", CANCELLATION.type.encode()))) is None
    both = [("ce_type", CANCELLATION.type.encode()), *encode_headers(ACCEPTANCE)]
    assert read(Record(ACCEPTANCE.value, both)) == ACCEPTANCE


def test_an_event_that_nobody_had_a_right_to_send_is_poison() -> None:
    def check(event: Event) -> None:
        raise InvalidArgument(f"{event.subject} is not known", reason="TASK_NOT_FOUND")

    with pytest.raises(InvalidRecord, match=f"TASK_NOT_FOUND: {KEY} is not known"):
        Reader({ACCEPTED}, check).read(record_of(ACCEPTANCE))


def test_a_check_that_cannot_be_made_condemns_nobody() -> None:
    def check(_: Event) -> None:
        raise Unavailable("the database is away")

    with pytest.raises(Unavailable):
        Reader({ACCEPTED}, check).read(record_of(ACCEPTANCE))


def test_the_log_can_tell_of_any_record() -> None:
    assert describe(record_of(ACCEPTANCE)) == {
        "topic": "task",
        "partition": 1,
        "offset": 5,
        "event_id": ACCEPTANCE.id,
        "type": ACCEPTED,
        "subject": KEY,
    }
    hostile = describe(Record(None, [("ce_id", b"\xff"), ("ce_type", None)], None))
    assert (hostile["event_id"], hostile["type"], hostile["subject"]) == ("\ufffd", "", "")

"""Events survive the way through Kafka's headers; what is no event is told so, and never believed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from hypothesis import given
from hypothesis import strategies as st
from vesta_common.errors import InvalidArgument
from vesta_common.events.cloudevents import (
    Event,
    decode,
    encode_headers,
    message_class_of,
    new_event,
    topic_of,
    type_of,
)
from vesta_contracts import everything
from vesta_contracts.annotation.v1 import TaskAccepted
from vesta_contracts.serving.v1 import DeploymentRolledBack
from vesta_contracts.training.v1 import ModelVersionRegistered, TrainingRunSucceeded

NOW = datetime(2026, 5, 4, 3, 2, 1, 678901, tzinfo=UTC)
PARTS = {"ItemPrediction"}  # messages in events.proto that are part of an event
TASK = "projects/acme/campaigns/vans/tasks/1"


def an_event(**changes: Any) -> Event:
    return Event(**{**new_event("annotation", TASK, TaskAccepted(task=TASK), NOW).__dict__, **changes})


def headers_with(**changes: bytes | None) -> list[tuple[str, bytes | None]]:
    headers: dict[str, bytes | None] = dict(encode_headers(an_event()))
    return [(name, value) for name, value in {**headers, **changes}.items() if value != b"absent"]


def test_an_event_survives_the_way() -> None:
    event = an_event(carrier={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    assert decode(encode_headers(event), event.value) == event


def test_an_image_survives_the_way() -> None:
    frame = a_frame()
    found = decode(encode_headers(frame), frame.value)
    assert replace(found, id=frame.id) == frame


def test_cameras_that_number_their_frames_alike_are_told_apart() -> None:
    cameras = [("gateway-a", "door"), ("gateway-a", "yard"), ("gateway-b", "door")]
    frames = [a_frame(id="1", source=source, subject=f"{TASK}/{camera}") for source, camera in cameras]
    ids = [decode(encode_headers(frame), frame.value).id for frame in (*frames, *frames)]
    assert len(set(ids)) == 3
    assert ids[:3] == ids[3:]  # a repeat bears the same one


def a_frame(**changes: Any) -> Event:
    kind = "vesta.pipelining.frame.v1.captured"
    return an_event(**{"type": kind, "payload": b"\xff\xd8\xff", "content_type": "image/jpeg", **changes})


@pytest.mark.parametrize(
    ("message", "event_type"),
    [
        (TaskAccepted(), "vesta.annotation.task.v1.accepted"),
        (TrainingRunSucceeded(), "vesta.training.training_run.v1.succeeded"),
        (ModelVersionRegistered(), "vesta.training.model_version.v1.registered"),
        (DeploymentRolledBack(), "vesta.serving.deployment.v1.rolled_back"),
    ],
)
def test_types_and_messages_name_each_other(message: Any, event_type: str) -> None:
    assert type_of(message) == event_type
    assert message_class_of(event_type) is type(message)
    assert topic_of(event_type) == event_type.rpartition(".")[0]


def test_every_event_of_the_contracts_has_a_type_that_leads_back_to_it() -> None:
    files = [name for name in everything.FILES if name.endswith("/events.proto")]
    assert len(files) >= 7
    for name in files:
        for message in descriptor_pool.Default().FindFileByName(name).message_types_by_name.values():
            if message.name not in PARTS:
                assert message_class_of(type_of(message._concrete_class())).DESCRIPTOR is message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ce_id": b"absent"}, "ce_id"),
        ({"ce_type": b""}, "ce_type"),
        ({"ce_source": None}, "ce_source"),
        ({"ce_time": b"absent"}, "ce_time"),
        ({"ce_time": b"yesterday"}, "ce_time"),
        ({"ce_time": b"0001-01-01T00:00:00+23:59"}, "ce_time"),
        ({"ce_id": b"\xff\xfe"}, "UTF-8"),
        ({"ce_id": b"a\x00b"}, "NUL"),
        ({"ce_id": b"x" * 201}, "200"),
        ({"ce_subject": b"x" * 1001}, "1000"),
        ({"content-type": b"image/jpeg"}, "protobuf message, not image/jpeg"),
    ],
)
def test_malformed_records_are_told_what_is_wrong(changes: dict[str, bytes | None], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said) as refused:
        decode(headers_with(**changes), b"")
    assert refused.value.reason == "EVENT_MALFORMED"


UNKNOWN_TYPES = [
    "vesta.annotation.task.v1.eaten",
    "vesta.annotation.v1",
    "other.thing",
    "vesta.annotation.task.v2.accepted",
]


@pytest.mark.parametrize("event_type", UNKNOWN_TYPES)
def test_unknown_types_are_told_so(event_type: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        decode(headers_with(ce_type=event_type.encode()), b"")
    assert refused.value.reason == "EVENT_UNKNOWN"


def test_a_value_of_another_kind_is_malformed() -> None:
    with pytest.raises(InvalidArgument) as refused:
        decode(headers_with(), b"\xff\xff\xff")
    assert refused.value.reason == "EVENT_MALFORMED"


def test_the_key_stands_in_for_a_missing_subject() -> None:
    assert decode(headers_with(ce_subject=b"absent"), b"", b"projects/acme").subject == "projects/acme"


def test_times_are_utc_whatever_zone_they_came_in() -> None:
    ahead = NOW.astimezone(timezone(timedelta(hours=5)))
    assert decode(headers_with(ce_time=ahead.isoformat().encode()), b"").time == NOW
    assert decode(headers_with(ce_time=b"2026-05-04T03:02:01.678901"), b"").time == NOW
    assert decode(headers_with(ce_time=b"2026-05-04T03:02:01.678901Z"), b"").time == NOW


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ce_id", "ce_type", "ce_time", "ce_source", "content-type", "x"]), st.binary() | st.none()
        )
    ),
    st.binary() | st.none(),
    st.binary() | st.none(),
)
def test_no_record_does_anything_but_be_refused(headers: Any, value: bytes | None, key: bytes | None) -> None:
    with pytest.raises(InvalidArgument):
        decode(headers, value, key)

"""The payloads of events, and the compatibility with published ones."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import vesta_annotation.event_payloads as events
from annotation_builders import CAMPAIGN, item, label, member
from google.protobuf import json_format
from google.protobuf.message import Message
from vesta_annotation.decision import Decision
from vesta_common.events.cloudevents import message_class_of, type_of
from vesta_contracts.annotation.v1 import Review, Task

EXAMPLES = next(above / "protos/topics/examples" for above in Path(__file__).parents if (above / "protos").is_dir())
ID = "01k9v3d8q0w2s4x6z8a0b2c4d6"
TASK = Task(
    name=f"{CAMPAIGN}/tasks/{ID}", item=item(ID), control=True, model_version="projects/acme/models/vans/versions/3"
)
ROSA = member("rosa")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (
            "accepted",
            events.task_accepted(
                TASK, Decision([label("van")], [member("ada")], ROSA), datetime(2026, 1, 31, 12, tzinfo=UTC)
            ),
        ),
        (
            "rejected",
            events.task_rejected(TASK, Review(reviewer=ROSA, comment="the label is on the box, not the van")),
        ),
        ("cancelled", events.task_cancelled(TASK)),
    ],
)
def test_an_event_equals_its_golden_example(word: str, told: Message) -> None:
    event_type = f"vesta.annotation.task.v1.{word}"
    golden = json.loads((EXAMPLES / f"{event_type}.json").read_text())
    assert json_format.ParseDict(golden, message_class_of(event_type)()) == told
    assert type_of(told) == event_type

"""Copies a round's record with changes."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.message import Message
from vesta_contracts.conductor.v1 import Round

from vesta_conductor.reconciliation.state import RoundRecord


def with_updates(record: RoundRecord, *, label_time: datetime | None = None, **fields: Any) -> RoundRecord:
    """Returns a copy of the record with the given fields of its `Round` set, or cleared if None. A message replaces the previous one."""
    changed = Round()
    changed.CopyFrom(record.round)
    for name, value in fields.items():
        if value is None:
            changed.ClearField(name)  # type: ignore[arg-type]
        elif isinstance(value, Message):
            getattr(changed, name).CopyFrom(value)
        elif isinstance(value, datetime):
            getattr(changed, name).FromDatetime(value)
        elif isinstance(value, timedelta):
            getattr(changed, name).FromTimedelta(value)
        else:
            setattr(changed, name, value)
    return replace(record, round=changed, label_time=label_time or record.label_time)

"""Converts table rows to contract messages and back. A `body` is the message without fields that have a column or are counted. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from vesta_common.media.task_types import known_task_type
from vesta_common.messages import set_times, without
from vesta_common.resources.etags import with_etag
from vesta_contracts.annotation.v1 import Campaign, Submission, Task

from vesta_annotation.agreement import Answer
from vesta_annotation.leases import running_leases
from vesta_annotation.task_types import AnnotationTask

_CAMPAIGN_APART = ("name", "state", "counts", "create_time", "update_time", "etag")
_TASK_APART = (
    "name",
    "item",
    "state",
    "priority",
    "control",
    "blind",
    "submission_count",
    "rejection_count",
    "leases",
    "create_time",
    "update_time",
    "etag",
)


def campaign_body(campaign: Campaign) -> bytes:
    """Serializes the fields of a campaign that have no column."""
    return without(campaign, *_CAMPAIGN_APART).SerializeToString()


def campaign_of(row: Mapping[str, Any]) -> Campaign:
    """Returns the campaign of a row, without counts."""
    campaign = Campaign.FromString(row["body"])
    campaign.name = row["name"]
    campaign.state = Campaign.State.Value(row["state"])
    campaign.task_type = known_task_type(campaign.task_type)
    set_times(campaign, row, "create_time", "update_time")
    return with_etag(campaign)


def task_body(task: Task) -> bytes:
    """Serializes the fields of a task that have no column."""
    return without(task, *_TASK_APART).SerializeToString()


def task_of(row: Mapping[str, Any], now: datetime) -> Task:
    """Returns the task of a row, with its unexpired leases. The etag does not depend on the leases."""
    task = Task.FromString(row["body"])
    for field in ("name", "item", "priority", "control", "rejection_count"):
        setattr(task, field, row[field])
    task.blind = row["blind"] or row["control"]
    task.state = Task.State.Value(row["state"])
    task.submission_count = len(row["annotators"])
    set_times(task, row, "create_time", "update_time")
    with_etag(task)
    expire_times = {holder: datetime.fromisoformat(end) for holder, end in row["leases"].items()}
    task.leases.extend(running_leases(expire_times, now))
    return task


def answer_of(row: Mapping[str, Any], task_type: AnnotationTask[Any], by_key: Mapping[bytes, Any]) -> Answer:
    """Returns the answer of a row. Reads the annotations of task types without keys, and of rows that are older than the keys.

    Args:
        by_key: the values of the keys of answers and of accepted annotations.
    """
    key, accepted_key = row["answer_key"], row["accepted_key"]
    value = by_key[bytes(key)] if key is not None else None
    accepted = by_key[bytes(accepted_key)] if accepted_key is not None else None
    is_measured = value is not None or row["body"] is not None
    if value is None and is_measured:
        value = task_type.value(Submission.FromString(row["body"]).annotations)
    if accepted is None and row["task_body"] is not None:
        accepted = task_type.value(Task.FromString(row["task_body"]).accepted)
    return Answer(
        row["task"],
        row["annotator"],
        value,
        accepted,
        is_accepted=row["state"] == "ACCEPTED",
        is_measured=is_measured,
        rejected=row["rejected"],
        time_spent=row["time_spent"],
    )

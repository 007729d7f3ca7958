"""Rows of the tables ⇄ messages of the contract. A body is the message without what has a column or is counted. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from vesta_common.messages import set_times, without
from vesta_common.resources.etags import with_etag
from vesta_contracts.annotation.v1 import Campaign, Submission, Task

from vesta_annotation.agreement import Answer
from vesta_annotation.consensus import answer_key
from vesta_annotation.leases import running_leases

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
    """What a campaign's row keeps beside its columns."""
    return without(campaign, *_CAMPAIGN_APART).SerializeToString()


def campaign_of(row: Mapping[str, Any]) -> Campaign:
    """The campaign of a row, not counted."""
    campaign = Campaign.FromString(row["body"])
    campaign.name = row["name"]
    campaign.state = Campaign.State.Value(row["state"])
    set_times(campaign, row, "create_time", "update_time")
    return with_etag(campaign)


def task_body(task: Task) -> bytes:
    """What a task's row keeps beside its columns."""
    return without(task, *_TASK_APART).SerializeToString()


def task_of(row: Mapping[str, Any], now: datetime) -> Task:
    """The task of a row, with the leases that run; its etag does not depend on them."""
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


def answer_of(row: Mapping[str, Any]) -> Answer:
    """The answer of a row, by its keys; read from the whole bodies where those are older than the keys."""
    value, accepted = row["answer_key"], row["accepted_key"]
    if value is None:
        value = answer_key(Submission.FromString(row["body"]).annotations)
    if accepted is None and row["state"] == "ACCEPTED":
        accepted = answer_key(Task.FromString(row["task_body"]).accepted)
    return Answer(
        row["task"],
        row["annotator"],
        bytes(value),
        accepted and bytes(accepted),
        rejected=row["rejected"],
        time_spent=row["time_spent"],
    )

"""Rows of the tables ⇄ messages of the contract. A body is the message without what has a column or is counted. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.message import Message
from vesta_common.etags import with_etag
from vesta_contracts.annotation.v1 import Campaign, Task

from vesta_annotation.leases import running_leases

M = TypeVar("M", bound=Message)

_CAMPAIGN_APART = ("name", "state", "counts", "create_time", "update_time", "etag")
_TASK_APART = (
    "name",
    "item",
    "state",
    "priority",
    "control",
    "submission_count",
    "rejection_count",
    "leases",
    "create_time",
    "update_time",
    "etag",
)


def campaign_body(campaign: Campaign) -> bytes:
    """What a campaign's row keeps beside its columns."""
    return _without(campaign, _CAMPAIGN_APART).SerializeToString()


def campaign_of(row: Mapping[str, Any]) -> Campaign:
    """The campaign of a row, not counted."""
    campaign = Campaign.FromString(row["body"])
    campaign.name = row["name"]
    campaign.state = Campaign.State.Value(row["state"])
    campaign.create_time.FromDatetime(row["create_time"])
    campaign.update_time.FromDatetime(row["update_time"])
    with_etag(campaign)
    return campaign


def task_body(task: Task) -> bytes:
    """What a task's row keeps beside its columns."""
    return _without(task, _TASK_APART).SerializeToString()


def task_of(row: Mapping[str, Any], now: datetime) -> Task:
    """The task of a row, with the leases that run; its etag does not depend on them."""
    task = Task.FromString(row["body"])
    for field in ("name", "item", "priority", "control", "rejection_count"):
        setattr(task, field, row[field])
    task.state = Task.State.Value(row["state"])
    task.submission_count = len(row["annotators"])
    task.create_time.FromDatetime(row["create_time"])
    task.update_time.FromDatetime(row["update_time"])
    with_etag(task)
    expire_times = {holder: datetime.fromisoformat(end) for holder, end in row["leases"].items()}
    task.leases.extend(running_leases(expire_times, now))
    return task


def _without(message: M, fields: tuple[str, ...]) -> M:
    kept = type(message)()
    kept.CopyFrom(message)
    for field in fields:
        kept.ClearField(field)
    return kept

"""Campaigns, tasks, answers and reviews in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vesta_common import outbox
from vesta_common.clock import Clock
from vesta_common.errors import NotFound
from vesta_common.etags import with_etag
from vesta_common.events import new_event
from vesta_common.filters import Where
from vesta_common.postgres import Connection, Postgres, load_queries
from vesta_contracts.annotation.v1 import Campaign, CampaignCounts, Lease, Review, Submission, Task, TaskCancelled

from vesta_annotation.agreement import Answer

SERVICE = "annotation"
LEASE_DEFAULT = timedelta(minutes=10)

queries = load_queries("vesta_annotation")


@dataclass(frozen=True)
class TaskRow:
    """A task as it is kept.

    Attributes:
        task: what it was created with, and what was accepted.
        round: which round of answers it is in, from 1.
    """

    name: str
    campaign: str
    task: Task
    state: "Task.State.ValueType"
    round: int
    submission_count: int
    rejection_count: int
    accept_time: datetime | None
    create_time: datetime
    update_time: datetime


class Store:
    """The service's tables."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self.postgres = postgres
        self.clock = clock

    def publish(self, connection: Connection, subject: str, payload: Any) -> None:
        """Publishes an event in the caller's transaction."""
        outbox.publish(connection, new_event(SERVICE, subject, payload, self.clock.now()))

    def insert_campaign(self, connection: Connection, campaign: Campaign) -> None:
        """Keeps a new campaign. Raises psycopg.errors.UniqueViolation where the name is taken."""
        queries.insert_campaign(
            connection,
            name=campaign.name,
            parent="/".join(campaign.name.split("/")[:2]),
            body=_campaign_body(campaign),
            state=Campaign.State.Name(campaign.state),
            now=self.clock.now(),
        )

    def get_campaign(self, connection: Connection, name: str, *, lock: bool = False) -> Campaign:
        """A campaign without its counts. Raises NotFound."""
        find = queries.lock_campaign if lock else queries.find_campaign
        return _campaign(_found(find(connection, name=name), name))

    def with_counts(self, connection: Connection, campaign: Campaign) -> Campaign:
        """The same campaign, with its counts."""
        row = queries.count_tasks(connection, campaign=campaign.name)
        campaign.counts.CopyFrom(CampaignCounts(**row))
        return campaign

    def list_campaigns(self, connection: Connection, parent: str, after: str, limit: int) -> list[Campaign]:
        """A project's campaigns after a name, by name."""
        rows = list(queries.list_campaigns(connection, parent=parent, after=after, limit=limit))
        return [self.with_counts(connection, _campaign(row)) for row in rows]

    def update_campaign(self, connection: Connection, campaign: Campaign) -> None:
        """Keeps a changed campaign."""
        queries.update_campaign(
            connection,
            name=campaign.name,
            body=_campaign_body(campaign),
            state=Campaign.State.Name(campaign.state),
            now=self.clock.now(),
        )

    def delete_campaign(self, connection: Connection, name: str) -> None:
        """Removes a campaign with its tasks."""
        queries.delete_campaign(connection, name=name)

    def cancel_tasks(self, connection: Connection, campaign: str) -> None:
        """Cancels every undecided task of a campaign, and tells of each."""
        for row in list(queries.cancel_tasks(connection, campaign=campaign, now=self.clock.now())):
            self.publish(connection, row["name"], TaskCancelled(task=row["name"], item=row["item"]))

    def find_undecided(self, connection: Connection, campaign: str, items: Sequence[str]) -> dict[str, str]:
        """The undecided tasks of these items, by item."""
        rows = queries.find_undecided(connection, campaign=campaign, items=list(items))
        return {row["item"]: row["name"] for row in rows}

    def insert_tasks(self, connection: Connection, campaign: str, tasks: Sequence[Task]) -> None:
        """Keeps new tasks."""
        now = self.clock.now()
        with connection.cursor() as cursor:
            cursor.executemany(
                queries.insert_task.sql,
                [
                    {
                        "name": task.name,
                        "campaign": campaign,
                        "item": task.item,
                        "priority": task.priority,
                        "control": task.control,
                        "body": _task_body(task),
                        "now": now,
                    }
                    for task in tasks
                ],
            )

    def lock_task(self, connection: Connection, name: str) -> TaskRow:
        """A task, kept from others until the transaction ends. Raises NotFound."""
        return _task_row(_found(queries.lock_task(connection, name=name), name))

    def get_tasks(self, connection: Connection, names: Sequence[str]) -> list[Task]:
        """Tasks as people see them, highest priority first. Raises NotFound for the first that is missing."""
        rows = [_task_row(row) for row in queries.find_tasks(connection, names=list(names))]
        missing = set(names) - {row.name for row in rows}
        if missing:
            _found(None, min(missing))
        return self._messages(connection, rows)

    def list_tasks(self, connection: Connection, campaign: str, where: Where, after: str, limit: int) -> list[Task]:
        """A campaign's tasks after a name, in order of creation."""
        statement = (
            f"SELECT * FROM tasks WHERE campaign = %(campaign)s AND name > %(after)s AND {where.sql} "
            "ORDER BY name LIMIT %(limit)s"
        )
        values = {"campaign": campaign, "after": after, "limit": limit, **where.parameters}
        rows = connection.execute(statement.encode(), values).fetchall()
        return self._messages(connection, [_task_row(row) for row in rows])

    def update_task(self, connection: Connection, row: TaskRow) -> None:
        """Keeps a changed task."""
        queries.update_task(
            connection,
            name=row.name,
            state=Task.State.Name(row.state),
            body=_task_body(row.task),
            round=row.round,
            submission_count=row.submission_count,
            rejection_count=row.rejection_count,
            accept_time=row.accept_time,
            now=self.clock.now(),
        )

    def lease_to_annotate(
        self, connection: Connection, campaign: Campaign, caller: str, limit: int, expire_time: datetime
    ) -> list[str]:
        """Leases the caller's next tasks to answer."""
        rows = queries.lease_to_annotate(
            connection,
            campaign=campaign.name,
            caller=caller,
            replicas=max(1, campaign.replicas),
            limit=limit,
            now=self.clock.now(),
        )
        return self._lease(connection, [row["name"] for row in rows], caller, expire_time)

    def lease_to_review(
        self, connection: Connection, campaign: str, caller: str, limit: int, expire_time: datetime, *, own_too: bool
    ) -> list[str]:
        """Leases the caller's next tasks to review."""
        rows = queries.lease_to_review(
            connection, campaign=campaign, caller=caller, limit=limit, now=self.clock.now(), own_too=own_too
        )
        return self._lease(connection, [row["name"] for row in rows], caller, expire_time)

    def put_lease(self, connection: Connection, task: str, holder: str, expire_time: datetime) -> None:
        """Keeps a task for somebody, or keeps it longer."""
        queries.put_lease(connection, task=task, holder=holder, expire_time=expire_time)

    def holds(self, connection: Connection, task: str, holder: str) -> bool:
        """Whether somebody's lease still runs."""
        return queries.find_lease(connection, task=task, holder=holder, now=self.clock.now()) is not None

    def drop_lease(self, connection: Connection, task: str, holder: str) -> None:
        """Gives a task back."""
        queries.drop_lease(connection, task=task, holder=holder)

    def drop_leases(self, connection: Connection, task: str) -> None:
        """Ends every lease of a task."""
        queries.drop_leases(connection, task=task)

    def insert_submission(self, connection: Connection, submission: Submission, task: str) -> None:
        """Keeps an answer. Raises psycopg.errors.UniqueViolation where the annotator has answered in this round."""
        queries.insert_submission(
            connection,
            name=submission.name,
            task=task,
            round=submission.round,
            annotator=submission.annotator,
            body=submission.SerializeToString(),
            now=self.clock.now(),
        )

    def has_answered(self, connection: Connection, task: str, number: int, annotator: str) -> bool:
        """Whether somebody has answered in a round."""
        return bool(queries.has_answered(connection, task=task, round=number, annotator=annotator))

    def get_submission(self, connection: Connection, name: str) -> Submission:
        """An answer. Raises NotFound."""
        return Submission.FromString(bytes(_found(queries.find_submission(connection, name=name), name)["body"]))

    def list_submissions(self, connection: Connection, task: str, after: str, limit: int) -> list[Submission]:
        """A task's answers after a name, in order of time."""
        rows = queries.list_submissions(connection, task=task, after=after, limit=limit)
        return [Submission.FromString(bytes(row["body"])) for row in rows]

    def round_of(self, connection: Connection, row: TaskRow) -> list[Submission]:
        """The answers of the task's present round, in order of time."""
        rows = queries.list_round(connection, task=row.name, round=row.round)
        return [Submission.FromString(bytes(entry["body"])) for entry in rows]

    def list_answers(self, connection: Connection, campaign: str) -> list[Answer]:
        """Every answer of a campaign's latest rounds."""
        answers = []
        for row in queries.list_answers(connection, campaign=campaign):
            decided = row["state"] == "ACCEPTED"
            accepted = tuple(Task.FromString(bytes(row["task_body"])).accepted) if decided else None
            given = Submission.FromString(bytes(row["body"])).annotations
            answers.append(Answer(row["task"], row["annotator"], tuple(given), accepted))
        return answers

    def insert_review(self, connection: Connection, review: Review, task: str) -> None:
        """Keeps a review."""
        queries.insert_review(
            connection, name=review.name, task=task, body=review.SerializeToString(), now=self.clock.now()
        )

    def get_review(self, connection: Connection, name: str) -> Review:
        """A review. Raises NotFound."""
        return Review.FromString(bytes(_found(queries.find_review(connection, name=name), name)["body"]))

    def list_reviews(self, connection: Connection, task: str, after: str, limit: int) -> list[Review]:
        """A task's reviews after a name, in order of time."""
        rows = queries.list_reviews(connection, task=task, after=after, limit=limit)
        return [Review.FromString(bytes(row["body"])) for row in rows]

    def _lease(self, connection: Connection, names: list[str], holder: str, expire_time: datetime) -> list[str]:
        for name in names:
            self.put_lease(connection, name, holder, expire_time)
        return names

    def _messages(self, connection: Connection, rows: Sequence[TaskRow]) -> list[Task]:
        leases: dict[str, list[Lease]] = {row.name: [] for row in rows}
        for entry in queries.list_leases(connection, tasks=list(leases), now=self.clock.now()):
            lease = Lease(holder=entry["holder"])
            lease.expire_time.FromDatetime(entry["expire_time"])
            leases[entry["task"]].append(lease)
        return [_task(row, leases[row.name]) for row in rows]


def lease_duration(campaign: Campaign) -> timedelta:
    """How long a task of the campaign is kept for whoever took it."""
    return campaign.lease_duration.ToTimedelta() if campaign.HasField("lease_duration") else LEASE_DEFAULT


def _campaign_body(campaign: Campaign) -> bytes:
    kept = Campaign()
    kept.CopyFrom(campaign)
    for field in ("state", "counts", "create_time", "update_time", "etag"):
        kept.ClearField(field)
    return kept.SerializeToString(deterministic=True)


def _campaign(row: dict[str, Any]) -> Campaign:
    campaign = Campaign.FromString(bytes(row["body"]))
    campaign.state = Campaign.State.Value(row["state"])
    campaign.create_time.FromDatetime(row["create_time"])
    campaign.update_time.FromDatetime(row["update_time"])
    return with_etag(campaign)  # type: ignore[no-any-return]


def _task_body(task: Task) -> bytes:
    kept = Task()
    kept.CopyFrom(task)
    for field in ("state", "submission_count", "rejection_count", "leases", "create_time", "update_time", "etag"):
        kept.ClearField(field)
    return kept.SerializeToString(deterministic=True)


def _task_row(row: dict[str, Any]) -> TaskRow:
    fields = (
        "name",
        "campaign",
        "round",
        "submission_count",
        "rejection_count",
        "accept_time",
        "create_time",
        "update_time",
    )
    return TaskRow(
        task=Task.FromString(bytes(row["body"])),
        state=Task.State.Value(row["state"]),
        **{field: row[field] for field in fields},
    )


def _task(row: TaskRow, leases: Sequence[Lease]) -> Task:
    task = Task()
    task.CopyFrom(row.task)
    task.name, task.state = row.name, row.state
    task.submission_count, task.rejection_count = row.submission_count, row.rejection_count
    task.create_time.FromDatetime(row.create_time)
    task.update_time.FromDatetime(row.update_time)
    with_etag(task)
    task.leases.extend(leases)
    return task


def _found(row: dict[str, Any] | None, name: str) -> dict[str, Any]:
    if row is None:
        raise NotFound(f"there is no {name}", reason="RESOURCE_NOT_FOUND", metadata={"name": name})
    return row

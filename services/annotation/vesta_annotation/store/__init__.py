"""Stores campaigns and tasks in PostgreSQL. Events are published in the transaction of the change that they report."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from vesta_common.clock import Clock
from vesta_common.events import outbox
from vesta_common.events.cloudevents import new_event
from vesta_common.media.large_annotations import LargeAnnotations
from vesta_common.messages import without
from vesta_common.resources.filters import Where
from vesta_common.resources.methods import existing, taken
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.annotation.v1 import Campaign, CampaignCounts, Review, Task

from vesta_annotation.decision import Decision
from vesta_annotation.event_payloads import TaskEvent, task_accepted, task_cancelled, task_rejected
from vesta_annotation.leases import expire_time
from vesta_annotation.rows import campaign_body, campaign_of, task_body, task_of
from vesta_annotation.store.answers import StoredAnswers
from vesta_annotation.store.statements import queries
from vesta_annotation.task_types import Consensus

SERVICE = "annotation"


class Store(StoredAnswers):
    """Reads and writes the service's tables. Every method runs in the transaction that is passed to it."""

    def __init__(self, postgres: Postgres, clock: Clock, large: LargeAnnotations) -> None:
        super().__init__(clock)
        self.postgres = postgres
        self._large = large

    def count_undecided_tasks(self, connection: Connection) -> list[dict[str, Any]]:
        """Counts undecided tasks by state."""
        return list(queries.count_undecided_tasks(connection))

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Opens a transaction. Rolls it back if the block raises."""
        with self.postgres.transaction() as connection:
            yield connection

    # Campaigns

    def insert_campaign(self, connection: Connection, campaign: Campaign) -> Campaign:
        """Inserts a campaign. Raises AlreadyExists."""
        inserted = queries.insert_campaign(
            connection,
            name=campaign.name,
            parent=parent_of(campaign.name),
            state=Campaign.State.Name(campaign.state),
            body=campaign_body(campaign),
            now=self.clock.now(),
        )
        if not inserted:
            raise taken(campaign.name, "choose another campaign_id")
        return self.get_campaign(connection, campaign.name)

    def get_campaign(self, connection: Connection, name: str, *, lock: bool = False) -> Campaign:
        """Returns a campaign without its counts. `lock` locks its row until the transaction ends. Raises NotFound."""
        find = queries.lock_campaign if lock else queries.find_campaign
        return campaign_of(existing(find(connection, name=name), name))

    def list_campaigns(self, connection: Connection, parent: str, after: str, limit: int) -> list[Campaign]:
        """Returns a project's campaigns with a name greater than `after`, ordered by name, without their counts."""
        return [campaign_of(row) for row in queries.list_campaigns(connection, parent=parent, after=after, limit=limit)]

    def count(self, connection: Connection, campaigns: Sequence[Campaign]) -> None:
        """Sets the counts of the campaigns."""
        names = [campaign.name for campaign in campaigns]
        counts = {row.pop("campaign"): row for row in queries.count_tasks(connection, campaigns=names)}
        for campaign in campaigns:
            fields = counts.get(campaign.name, {})
            campaign.counts.CopyFrom(CampaignCounts(**{field: int(count) for field, count in fields.items()}))

    def update_campaign(self, connection: Connection, campaign: Campaign) -> Campaign:
        queries.update_campaign(
            connection,
            name=campaign.name,
            state=Campaign.State.Name(campaign.state),
            body=campaign_body(campaign),
            now=self.clock.now(),
        )
        return self.get_campaign(connection, campaign.name)

    def delete_campaign(self, connection: Connection, name: str) -> None:
        """Deletes a campaign with its tasks, and publishes the cancellation of undecided ones."""
        self.cancel_tasks(connection, name)
        queries.delete_campaign(connection, name=name)

    # Tasks

    def insert_tasks(self, connection: Connection, campaign: str, tasks: Sequence[Task]) -> None:
        """Inserts tasks as open."""
        now = self.clock.now()
        rows = [
            {
                "name": task.name,
                "campaign": campaign,
                "item": task.item,
                "priority": task.priority,
                "control": task.control,
                "blind": task.blind,
                "body": task_body(task),
                "now": now,
            }
            for task in tasks
        ]
        if rows:
            queries.insert_tasks(connection, rows)

    def find_undecided(self, connection: Connection, campaign: str, items: Sequence[str]) -> dict[str, str]:
        """Returns the names of the undecided tasks for these items, by item."""
        rows = queries.find_undecided(connection, campaign=campaign, items=list(items))
        return {row["item"]: row["name"] for row in rows}

    def list_blind_items(self, connection: Connection, items: Sequence[str]) -> set[str]:
        """Returns those of the items that have an undecided blind task in any campaign."""
        return {row["item"] for row in queries.list_blind_items(connection, items=list(items))} if items else set()

    def get_tasks(self, connection: Connection, names: Sequence[str]) -> dict[str, Task]:
        """Returns tasks by name. Raises NotFound for the first missing one."""
        tasks = {task.name: task for task in self._tasks(queries.find_tasks(connection, names=list(names)))}
        return {name: existing(tasks.get(name), name) for name in names}

    def get_task(self, connection: Connection, name: str) -> Task:
        """Returns a task. Raises NotFound."""
        return self.get_tasks(connection, [name])[name]

    def lock_task(self, connection: Connection, name: str) -> Task:
        """Returns a task and locks its row until the transaction ends. Raises NotFound."""
        return self._task(existing(queries.lock_task(connection, name=name), name))

    def list_tasks(self, connection: Connection, campaign: str, where: Where, after: str, limit: int) -> list[Task]:
        """Returns a campaign's tasks with a name greater than `after`, in order of creation."""
        statement = (
            f"SELECT * FROM tasks WHERE campaign = %(campaign)s AND name > %(after)s AND {where.sql} "
            "ORDER BY name LIMIT %(limit)s"
        )
        values = {"campaign": campaign, "after": after, "limit": limit, **where.parameters}
        return self._tasks(connection.execute(statement.encode(), values).fetchall())

    # Leases

    def lease_to_annotate(self, connection: Connection, campaign: Campaign, caller: str, limit: int) -> list[Task]:
        """Leases up to `limit` tasks to the caller for annotation, highest priority first."""
        return self._lease(
            queries.lease_to_annotate,
            connection,
            campaign,
            caller,
            limit,
            annotators_per_task=campaign.annotators_per_task,
        )

    def lease_to_review(
        self, connection: Connection, campaign: Campaign, caller: str, limit: int, *, own_too: bool
    ) -> list[Task]:
        """Leases up to `limit` tasks to the caller for review, highest priority first.

        Args:
            own_too: whether to include tasks that the caller has answered.
        """
        return self._lease(queries.lease_to_review, connection, campaign, caller, limit, own_too=own_too)

    def _lease(
        self,
        query: Callable[..., list[dict[str, Any]]],
        connection: Connection,
        campaign: Campaign,
        caller: str,
        limit: int,
        **terms: Any,
    ) -> list[Task]:
        now = self.clock.now()
        until = expire_time(campaign, now)
        rows = query(
            connection, campaign=campaign.name, caller=caller, limit=limit, now=now, expire_time=until, **terms
        )
        return sorted(self._tasks(rows), key=lambda task: (-task.priority, task.name))

    def renew_lease(self, connection: Connection, name: str, caller: str, until: datetime) -> Task:
        """Extends a lease."""
        return self._task(queries.renew_lease(connection, name=name, caller=caller, expire_time=until))

    def drop_lease(self, connection: Connection, name: str, caller: str) -> Task:
        """Deletes a lease. Raises NotFound."""
        return self._task(existing(queries.drop_lease(connection, name=name, caller=caller), name))

    # Decisions

    def accept(self, connection: Connection, task: Task, decision: Decision, accepted_key: bytes | None) -> None:
        """Accepts the decision of a task, with its key if the task type has keys, and publishes it."""
        task = without(task, "accepted", "agreed", "disagreements")
        task.accepted.extend(decision.annotations)
        self._settle(connection, task, Task.ACCEPTED, accepted_key)
        stored = self._large.store(task.item, decision.annotations)
        self._publish(connection, task_accepted(task, decision, self.clock.now(), stored))

    def send_to_review(self, connection: Connection, task: Task, consensus: Consensus | None) -> None:
        """Moves a task to review, with what its answers agree on and about which objects they differ."""
        if consensus:
            task.agreed.extend(consensus.annotations)
            task.disagreements.extend(consensus.disagreements)
        self._settle(connection, task, Task.IN_REVIEW)

    def begin_round(self, connection: Connection, task: Task, review: Review) -> None:
        """Starts another round of answers, as the review requests, and publishes the rejection."""
        body = task_body(without(task, "agreed", "disagreements"))
        queries.begin_round(connection, name=task.name, body=body, now=self.clock.now())
        self._publish(connection, task_rejected(task, review))

    def cancel_task(self, connection: Connection, task: Task) -> Task:
        """Cancels a task and publishes the cancellation."""
        self._publish(connection, task_cancelled(task))
        return self._settle(connection, task, Task.CANCELLED)

    def cancel_tasks(self, connection: Connection, campaign: str) -> None:
        """Cancels every undecided task of a campaign and publishes the cancellations."""
        rows = queries.cancel_tasks(connection, campaign=campaign, now=self.clock.now())
        self._publish(connection, *(task_cancelled(Task(**row)) for row in rows))

    def _settle(
        self, connection: Connection, task: Task, state: "Task.State.ValueType", accepted_key: bytes | None = None
    ) -> Task:
        fields = {
            "state": Task.State.Name(state),
            "body": task_body(task),
            "accepted_key": accepted_key,
            "now": self.clock.now(),
        }
        return self._task(queries.settle_task(connection, name=task.name, **fields))

    def _publish(self, connection: Connection, *payloads: TaskEvent) -> None:
        """Publishes events through the outbox, once the transaction has committed."""
        now = self.clock.now()
        outbox.publish(connection, *(new_event(SERVICE, payload.task, payload, now) for payload in payloads))

    # Rows

    def _task(self, row: dict[str, Any]) -> Task:
        return task_of(row, self.clock.now())

    def _tasks(self, rows: Iterable[dict[str, Any]]) -> list[Task]:
        now = self.clock.now()
        return [task_of(row, now) for row in rows]

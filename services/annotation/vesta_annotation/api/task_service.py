"""gRPC: tasks and their leases."""

from dataclasses import replace
from datetime import datetime

import grpc
from vesta_common import filters, trace
from vesta_common.errors import FailedPrecondition, InvalidArgument, PermissionDenied, Unauthenticated, Violation
from vesta_common.idempotency import once
from vesta_common.ids import new_id
from vesta_common.pages import read_page
from vesta_common.postgres import Connection
from vesta_contracts.annotation.v1 import (
    BatchCreateTasksRequest,
    BatchCreateTasksResponse,
    Campaign,
    CancelTaskRequest,
    GetTaskRequest,
    LeasePurpose,
    LeaseTasksRequest,
    LeaseTasksResponse,
    ListTasksRequest,
    ListTasksResponse,
    ReleaseTaskRequest,
    RenewLeaseRequest,
    Task,
    TaskCancelled,
    TaskServiceServicer,
)

from vesta_annotation.store import Store, TaskRow, lease_duration

REVIEWING_ROLES = ("reviewer", "engineer", "owner")
_FIELDS = {
    "state": filters.Field("state", filters.one_of("OPEN", "IN_REVIEW", "ACCEPTED", "CANCELLED")),
    "control": filters.Field("control", filters.boolean),
    "item": filters.Field("item"),
    "priority": filters.Field("priority", float, ordered=True),
    "create_time": filters.Field("create_time", filters.instant, ordered=True),
    "accept_time": filters.Field("accept_time", filters.instant, ordered=True),
}


def calling_member() -> str:
    """Who is asking.

    Raises:
        Unauthenticated: nobody is known.
    """
    caller = trace.caller()
    if not caller:
        raise Unauthenticated("tasks are handed to members; come with an API key", reason="CALLER_UNKNOWN")
    return caller


def campaign_of(name: str) -> str:
    """`projects/acme/campaigns/vans` for one of its tasks, or anything below."""
    return "/".join(name.split("/")[:4])


class TaskService(TaskServiceServicer):
    """Hands out Tasks."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def BatchCreateTasks(
        self, request: BatchCreateTasksRequest, context: grpc.ServicerContext
    ) -> BatchCreateTasksResponse:
        """Keeps new tasks; an item that has an undecided one is answered with it."""

        def create() -> BatchCreateTasksResponse:
            campaign = self._store.get_campaign(connection, request.parent, lock=True)
            if campaign.state == Campaign.CLOSED:
                raise FailedPrecondition(f"{campaign.name} is closed; open another", reason="CAMPAIGN_CLOSED")
            names = self._store.find_undecided(connection, campaign.name, [task.item for task in request.tasks])
            fresh = []
            for wanted in request.tasks:
                if wanted.item not in names:
                    task = Task()
                    task.CopyFrom(wanted)
                    task.name = names[wanted.item] = f"{campaign.name}/tasks/{new_id()}"
                    del task.accepted[:]
                    fresh.append(task)
            self._store.insert_tasks(connection, campaign.name, fresh)
            made = {task.item: task for task in self._store.get_tasks(connection, list(names.values()))}
            return BatchCreateTasksResponse(tasks=[made[wanted.item] for wanted in request.tasks])

        with self._store.postgres.transaction() as connection:
            return once(connection, request, BatchCreateTasksResponse, create)

    def GetTask(self, request: GetTaskRequest, context: grpc.ServicerContext) -> Task:
        """One task."""
        with self._store.postgres.transaction() as connection:
            return self._store.get_tasks(connection, [request.name])[0]

    def ListTasks(self, request: ListTasksRequest, context: grpc.ServicerContext) -> ListTasksResponse:
        """A campaign's tasks in order of creation."""
        page = read_page(request)
        where = filters.compile_filter(request.filter, _FIELDS)
        with self._store.postgres.transaction() as connection:
            self._store.get_campaign(connection, request.parent)
            after = page.cursor[0] if page.cursor else ""
            found = self._store.list_tasks(connection, request.parent, where, after, page.limit)
        kept, token = page.cut(found, lambda task: (task.name,))
        return ListTasksResponse(tasks=kept, next_page_token=token)

    def LeaseTasks(self, request: LeaseTasksRequest, context: grpc.ServicerContext) -> LeaseTasksResponse:
        """Keeps the caller's next tasks for a while."""
        caller, limit = calling_member(), request.count or 1
        if request.purpose == LeasePurpose.LEASE_PURPOSE_UNSPECIFIED:
            raise InvalidArgument(
                "purpose is required", reason="FIELD_INVALID", violations=[Violation("purpose", "is required")]
            )
        if request.purpose == LeasePurpose.LEASE_PURPOSE_REVIEW and trace.role() not in REVIEWING_ROLES:
            raise PermissionDenied("reviews are for reviewers; ask an owner for that role", reason="ROLE_TOO_LOW")
        with self._store.postgres.transaction() as connection:
            campaign = self._store.get_campaign(connection, request.parent)
            if campaign.state != Campaign.ACTIVE:
                return LeaseTasksResponse()
            expire = self._store.clock.now() + lease_duration(campaign)
            if request.purpose == LeasePurpose.LEASE_PURPOSE_ANNOTATE:
                names = self._store.lease_to_annotate(connection, campaign, caller, limit, expire)
            else:
                names = self._lease_to_review(connection, campaign, caller, limit, expire)
            return LeaseTasksResponse(tasks=self._store.get_tasks(connection, names) if names else ())

    def RenewLease(self, request: RenewLeaseRequest, context: grpc.ServicerContext) -> Task:
        """Keeps a leased task longer."""
        caller = calling_member()
        with self._store.postgres.transaction() as connection:
            row = self._store.lock_task(connection, request.name)
            check_lease(self._store, connection, row, caller)
            campaign = self._store.get_campaign(connection, row.campaign)
            expire = self._store.clock.now() + lease_duration(campaign)
            self._store.put_lease(connection, row.name, caller, expire)
            return self._store.get_tasks(connection, [row.name])[0]

    def ReleaseTask(self, request: ReleaseTaskRequest, context: grpc.ServicerContext) -> Task:
        """Gives a leased task back."""
        with self._store.postgres.transaction() as connection:
            row = self._store.lock_task(connection, request.name)
            self._store.drop_lease(connection, row.name, calling_member())
            return self._store.get_tasks(connection, [row.name])[0]

    def CancelTask(self, request: CancelTaskRequest, context: grpc.ServicerContext) -> Task:
        """Withdraws an undecided task; cancelling it again changes nothing."""
        with self._store.postgres.transaction() as connection:
            row = self._store.lock_task(connection, request.name)
            if row.state == Task.ACCEPTED:
                raise task_decided(row)
            if row.state != Task.CANCELLED:
                self._store.update_task(connection, replace(row, state=Task.CANCELLED))
                self._store.drop_leases(connection, row.name)
                self._store.publish(connection, row.name, TaskCancelled(task=row.name, item=row.task.item))
            return self._store.get_tasks(connection, [row.name])[0]

    def _lease_to_review(
        self, connection: Connection, campaign: Campaign, caller: str, limit: int, expire: datetime
    ) -> list[str]:
        """Others' answers first; one's own only where a platform has nobody else: the owner, who decides everything."""
        names = self._store.lease_to_review(connection, campaign.name, caller, limit, expire, own_too=False)
        if not names and trace.role() == "owner":
            names = self._store.lease_to_review(connection, campaign.name, caller, limit, expire, own_too=True)
        return names


def check_lease(store: Store, connection: Connection, row: TaskRow, caller: str) -> None:
    """Accepts the holder of a running lease.

    Raises:
        FailedPrecondition: TASK_DECIDED or LEASE_LOST.
    """
    if row.state in {Task.ACCEPTED, Task.CANCELLED}:
        raise task_decided(row)
    if not store.holds(connection, row.name, caller):
        raise FailedPrecondition(
            f"{row.name} is not kept for {caller} any more; lease it again",
            reason="LEASE_LOST",
            metadata={"task": row.name},
        )


def task_decided(row: TaskRow) -> FailedPrecondition:
    """Why a decided task cannot be changed."""
    word = Task.State.Name(row.state).lower()
    return FailedPrecondition(f"{row.name} is {word} already", reason="TASK_DECIDED", metadata={"task": row.name})

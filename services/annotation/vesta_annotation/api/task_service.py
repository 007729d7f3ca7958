"""The TaskService of the gRPC API: tasks and their leases."""

from collections.abc import Mapping, Sequence

import grpc
from vesta_common.errors import FailedPrecondition, InvalidArgument, Violation
from vesta_common.ids import new_id
from vesta_common.media.annotations import check_shapes
from vesta_common.messages import copy_of
from vesta_common.resources import filters
from vesta_common.resources.idempotency import once
from vesta_common.resources.methods import find_answer
from vesta_common.resources.names import parent_of
from vesta_common.resources.page_keys import by_name
from vesta_common.resources.pages import read_page, within_bytes
from vesta_common.storage.postgres import Connection
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
    TaskServiceServicer,
    TaskView,
)
from vesta_contracts.datasets.v1 import BatchGetItemsRequest, Item, ItemServiceStub

from vesta_annotation.api.caller import calling_member, check_may_review, is_annotator, may_review_own_answers
from vesta_annotation.blind_tasks import hides_prompts, is_blind, without_prompts
from vesta_annotation.leases import check_holder, check_undecided, expire_time
from vesta_annotation.store import Store

_FILTERS = {
    "state": filters.Field("state", filters.one_of("OPEN", "IN_REVIEW", "ACCEPTED", "CANCELLED")),
    "control": filters.Field("control", filters.boolean),
    "item": filters.Field("item"),
    "priority": filters.Field("priority", float, ordered=True),
    "create_time": filters.Field("create_time", filters.instant, ordered=True),
    "update_time": filters.Field("update_time", filters.instant, ordered=True),
}


class TaskService(TaskServiceServicer):
    """Implements TaskService."""

    def __init__(self, store: Store, items: ItemServiceStub) -> None:
        self._store = store
        self._items = items

    def BatchCreateTasks(
        self, request: BatchCreateTasksRequest, context: grpc.ServicerContext
    ) -> BatchCreateTasksResponse:
        """Creates tasks. Returns the existing task for an item that has an undecided one."""
        if answer := find_answer(self._store.postgres, request, BatchCreateTasksResponse):
            return answer
        with self._store.transaction() as connection:
            campaign = self._store.get_campaign(connection, request.parent)
        _check_open(campaign)
        _check_items(request.tasks, campaign)
        names = list(dict.fromkeys(task.item for task in request.tasks))
        found_items = self._items.BatchGetItems(BatchGetItemsRequest(parent=campaign.dataset, names=names)).items
        items = {item.name: item for item in found_items}
        for index, task in enumerate(request.tasks):
            media, field = items[task.item].media, f"tasks[{index}].pre_annotations"
            check_shapes(task.pre_annotations, media, campaign.task_type, field)
        with self._store.transaction() as connection:
            return once(connection, request, BatchCreateTasksResponse, lambda: self._create(connection, request, items))

    def GetTask(self, request: GetTaskRequest, context: grpc.ServicerContext) -> Task:
        with self._store.transaction() as connection:
            (task,) = self._visible(connection, [self._store.get_task(connection, request.name)])
        return task

    def ListTasks(self, request: ListTasksRequest, context: grpc.ServicerContext) -> ListTasksResponse:
        """Lists a campaign's tasks in order of creation."""
        page = read_page(request)
        where = filters.compile_filter(request.filter, _FILTERS)
        with self._store.transaction() as connection:
            self._store.get_campaign(connection, request.parent)
            rows = self._store.list_tasks(connection, request.parent, where, page.after, page.limit)
            if request.view == TaskView.TASK_VIEW_BASIC:
                for task in rows:
                    _clear_annotations(task)
            tasks, token = within_bytes(page, rows).cut(rows, by_name)
            tasks = self._visible(connection, tasks)
        return ListTasksResponse(tasks=tasks, next_page_token=token)

    def LeaseTasks(self, request: LeaseTasksRequest, context: grpc.ServicerContext) -> LeaseTasksResponse:
        """Leases the next tasks to the caller. Returns none if the campaign is not active."""
        caller, limit = calling_member(), request.count or 1
        if request.purpose == LeasePurpose.LEASE_PURPOSE_REVIEW:
            check_may_review()
        with self._store.transaction() as connection:
            campaign = self._store.get_campaign(connection, request.parent)
            if campaign.state != Campaign.ACTIVE:
                return LeaseTasksResponse()
            if request.purpose == LeasePurpose.LEASE_PURPOSE_ANNOTATE:
                leased = self._store.lease_to_annotate(connection, campaign, caller, limit)
                tasks = self._visible(connection, leased, answering=True)
            else:
                tasks = self._store.lease_to_review(connection, campaign, caller, limit, own_too=False)
                if not tasks and may_review_own_answers():
                    tasks = self._store.lease_to_review(connection, campaign, caller, limit, own_too=True)
        return LeaseTasksResponse(tasks=tasks)

    def RenewLease(self, request: RenewLeaseRequest, context: grpc.ServicerContext) -> Task:
        """Extends the caller's lease on a task."""
        caller = calling_member()
        with self._store.transaction() as connection:
            task = self._store.lock_task(connection, request.name)
            check_holder(task, caller)
            campaign = self._store.get_campaign(connection, parent_of(task.name))
            until = expire_time(campaign, self._store.clock.now())
            renewed = self._store.renew_lease(connection, task.name, caller, until)
            (task,) = self._visible(connection, [renewed], answering=renewed.state == Task.OPEN)
        return task

    def ReleaseTask(self, request: ReleaseTaskRequest, context: grpc.ServicerContext) -> Task:
        """Ends the caller's lease on a task."""
        caller = calling_member()
        with self._store.transaction() as connection:
            (task,) = self._visible(connection, [self._store.drop_lease(connection, request.name, caller)])
        return task

    def CancelTask(self, request: CancelTaskRequest, context: grpc.ServicerContext) -> Task:
        """Cancels an undecided task. Cancelling it again has no effect."""
        with self._store.transaction() as connection:
            task = self._store.lock_task(connection, request.name)
            if task.state == Task.CANCELLED:
                return task
            check_undecided(task)
            return self._store.cancel_task(connection, task)

    def _visible(self, connection: Connection, tasks: Sequence[Task], *, answering: bool = False) -> list[Task]:
        """Returns the tasks with only the fields that the caller may see.

        Args:
            answering: whether the caller leases the tasks to annotate them.
        """
        annotator = is_annotator()
        if not (answering or annotator):
            return list(tasks)
        blind_items = self._store.list_blind_items(connection, [task.item for task in tasks])
        return [
            without_prompts(task)
            if hides_prompts(task, blind_items, answering=answering, annotator=annotator)
            else task
            for task in tasks
        ]

    def _create(
        self, connection: Connection, request: BatchCreateTasksRequest, known: Mapping[str, Item]
    ) -> BatchCreateTasksResponse:
        campaign = self._store.get_campaign(connection, request.parent, lock=True)
        _check_open(campaign)
        items = [task.item for task in request.tasks]
        names = self._store.find_undecided(connection, campaign.name, items)
        fresh = []
        for requested in request.tasks:
            if requested.item not in names:
                task = _new_task(requested, campaign, known[requested.item])
                names[task.item] = task.name
                fresh.append(task)
        self._store.insert_tasks(connection, campaign.name, fresh)
        tasks = self._store.get_tasks(connection, list(names.values()))
        return BatchCreateTasksResponse(tasks=[tasks[names[item]] for item in items])


def _clear_annotations(task: Task) -> None:
    for field in ("pre_annotations", "accepted", "agreed", "disagreements"):
        task.ClearField(field)


def _check_items(tasks: Sequence[Task], campaign: Campaign) -> None:
    """Checks that all items belong to the campaign's dataset, which stores the answers.

    Raises:
        InvalidArgument: names the first item of another dataset.
    """
    for index, task in enumerate(tasks):
        if parent_of(task.item) != campaign.dataset:
            what = f"is {task.item}, which is not in the dataset of the campaign, {campaign.dataset}"
            field = f"tasks[{index}].item"
            raise InvalidArgument(f"{field} {what}", reason="ITEM_NOT_IN_DATASET", violations=[Violation(field, what)])


def _check_open(campaign: Campaign) -> None:
    """Checks that the campaign is not closed.

    Raises:
        FailedPrecondition: CAMPAIGN_CLOSED.
    """
    if campaign.state == Campaign.CLOSED:
        raise FailedPrecondition(
            f"{campaign.name} is closed; set its state to ACTIVE, or create another campaign",
            reason="CAMPAIGN_CLOSED",
            metadata={"campaign": campaign.name},
        )


def _new_task(requested: Task, campaign: Campaign, item: Item) -> Task:
    """Returns an undecided task with a new name and the fields copied from its item."""
    task = copy_of(
        requested,
        name=f"{campaign.name}/tasks/{new_id()}",
        width_px=item.media.width_px,
        height_px=item.media.height_px,
        mime_type=item.media.mime_type,
        blind=is_blind(requested, item),
    )
    for field in ("accepted", "agreed", "disagreements"):
        task.ClearField(field)
    return task

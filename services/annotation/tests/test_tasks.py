"""The TaskService: creating, listing and cancelling tasks."""

from datetime import UTC, timedelta

import pytest
from annotation_builders import CAMPAIGN, PROJECT, FakeItems, Service, a_box, item, label, names
from vesta_common.errors import FailedPrecondition, InvalidArgument, NotFound
from vesta_contracts.annotation.v1 import (
    BatchCreateTasksRequest,
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Task,
)
from vesta_contracts.common.v1 import Annotation, PixelBox


def listed(annotation: Service, filter_text: str = "") -> list[str]:
    """Returns the items of the tasks that match a filter."""
    found = annotation.tasks.ListTasks(ListTasksRequest(parent=CAMPAIGN, filter=filter_text)).tasks
    return sorted(task.item.rpartition("/")[2] for task in found)


def cancel(annotation: Service, task: Task) -> Task:
    return annotation.tasks.CancelTask(CancelTaskRequest(name=task.name))


def test_tasks_keep_their_fields_and_are_returned_in_request_order(annotation: Service) -> None:
    annotation.has_campaign()
    wanted = [
        Task(
            item=item(name),
            priority=priority,
            control=control,
            pre_annotations=[label("van", score=0.5), a_box(score=0.25)],
            model_version=f"{PROJECT}/models/vans/versions/3",
            selection_reason="unsure",
        )
        for name, priority, control in (("one", 0.25, True), ("two", 0.75, False))
    ]
    made = annotation.tasks.BatchCreateTasks(BatchCreateTasksRequest(parent=CAMPAIGN, tasks=wanted)).tasks
    for task, one in zip(made, wanted, strict=True):
        assert (task.state, task.submission_count, list(task.leases)) == (Task.OPEN, 0, [])
        assert task.create_time.ToDatetime(UTC) == annotation.clock.now()
        assert (task.width_px, task.height_px, task.mime_type, task.blind) == (64, 48, "image/jpeg", one.control)
        for field in (
            "name",
            "state",
            "create_time",
            "update_time",
            "etag",
            "width_px",
            "height_px",
            "mime_type",
            "blind",
        ):
            task.ClearField(field)
        assert task == one


def test_output_only_fields_cannot_be_set(annotation: Service) -> None:
    annotation.has_campaign()
    (task,) = annotation.has_tasks(
        "one", name=f"{CAMPAIGN}/tasks/mine", state=Task.ACCEPTED, accepted=[label("van")], rejection_count=3
    )
    assert task.name != f"{CAMPAIGN}/tasks/mine"
    assert (task.state, list(task.accepted), task.rejection_count) == (Task.OPEN, [], 0)


def test_an_item_has_one_undecided_task(annotation: Service) -> None:
    first = annotation.has_task()
    again, twice, new = annotation.has_tasks("one", "one", "two")
    assert again.name == twice.name == first.name
    cancel(annotation, first)
    assert annotation.has_tasks("one")[0].name not in {first.name, new.name}


def test_a_repeated_request_id_creates_nothing(annotation: Service) -> None:
    annotation.has_campaign()
    first = annotation.has_tasks("one", "two", request_id="r1")
    for task in first:
        cancel(annotation, task)
    assert names(annotation.has_tasks("one", "two", request_id="r1")) == names(first)


def test_items_of_another_dataset_are_rejected_and_nothing_is_created(annotation: Service) -> None:
    annotation.has_campaign()
    foreign = Task(item="projects/other/datasets/vans/items/one")
    with pytest.raises(InvalidArgument) as raised:
        annotation.tasks.BatchCreateTasks(
            BatchCreateTasksRequest(parent=CAMPAIGN, tasks=[Task(item=item("one")), foreign])
        )
    assert raised.value.reason == "ITEM_NOT_IN_DATASET"
    assert raised.value.violations[0].field == "tasks[1].item"
    assert listed(annotation) == []


def test_a_task_requires_an_existing_item(annotation: Service, items: FakeItems) -> None:
    annotation.has_campaign()
    items.gone.add(item("two"))
    with pytest.raises(NotFound, match="items/two"):
        annotation.has_tasks("one", "two")
    assert listed(annotation) == []


def test_a_suggestion_outside_the_image_is_rejected(annotation: Service) -> None:
    annotation.has_campaign()
    outside = Annotation(concept="van", box=PixelBox(x_max_px=99, y_max_px=9))
    with pytest.raises(InvalidArgument, match="64 x 48") as refused:
        annotation.has_tasks("one", pre_annotations=[label("van"), outside])
    assert (refused.value.reason, refused.value.violations[0].field) == (
        "SHAPE_OUTSIDE_IMAGE",
        "tasks[0].pre_annotations[1]",
    )


def test_facts_about_the_item_cannot_be_set(annotation: Service) -> None:
    annotation.has_campaign()
    (task,) = annotation.has_tasks("one", width_px=9, height_px=9, mime_type="video/mp4", blind=True)
    assert (task.width_px, task.height_px, task.mime_type, task.blind) == (64, 48, "image/jpeg", False)


@pytest.mark.parametrize("priority", [float("nan"), float("inf"), float("-inf")])
def test_a_priority_that_cannot_be_ordered_is_rejected(annotation: Service, priority: float) -> None:
    annotation.has_campaign()
    with pytest.raises(InvalidArgument, match="priority"):
        annotation.has_tasks("one", priority=priority)


def test_an_unknown_task_is_not_found(annotation: Service) -> None:
    annotation.has_campaign()
    with pytest.raises(NotFound):
        annotation.tasks.GetTask(GetTaskRequest(name=f"{CAMPAIGN}/tasks/gone"))


def test_tasks_are_listed_in_pages_each_once_in_order_of_creation(annotation: Service) -> None:
    annotation.has_campaign()
    made = [annotation.has_tasks(*(f"i{batch}{one}" for one in range(5))) for batch in range(3)]
    request, pages = ListTasksRequest(parent=CAMPAIGN, page_size=4), []
    while not pages or request.page_token:
        answer = annotation.tasks.ListTasks(request)
        pages.append(names(answer.tasks))
        request.page_token = answer.next_page_token
    assert [len(page) for page in pages] == [4, 4, 4, 3]
    assert [name for page in pages for name in page] == [name for batch in made for name in sorted(names(batch))]


def test_a_page_token_is_valid_only_for_its_query(annotation: Service) -> None:
    annotation.has_campaign()
    annotation.has_tasks("one", "two")
    token = annotation.tasks.ListTasks(ListTasksRequest(parent=CAMPAIGN, page_size=1)).next_page_token
    with pytest.raises(InvalidArgument) as raised:
        annotation.tasks.ListTasks(ListTasksRequest(parent=CAMPAIGN, filter="control", page_token=token))
    assert raised.value.reason == "PAGE_TOKEN_INVALID"


def test_tasks_are_filtered_by_their_fields(annotation: Service) -> None:
    annotation.has_campaign()
    decided, gone = annotation.has_tasks("decided", "gone", priority=0.9)
    annotation.has_tasks("chance", control=True, priority=0.1)
    annotation.answer("ada", decided, "van")
    cancel(annotation, gone)
    annotation.clock.advance(timedelta(days=1))
    annotation.has_tasks("late")
    midnight = annotation.clock.now().isoformat()
    assert listed(annotation, f'update_time >= "{midnight}"') == ["late"]
    assert listed(annotation, "state = OPEN") == ["chance", "late"]
    assert listed(annotation, "state != OPEN") == ["decided", "gone"]
    assert listed(annotation, "control") == listed(annotation, "control = true") == ["chance"]
    assert listed(annotation, f'item = "{item("gone")}"') == ["gone"]
    assert listed(annotation, "priority > 0.5 AND NOT state = CANCELLED") == ["decided"]
    assert listed(annotation, f'create_time >= "{midnight}" OR state = ACCEPTED') == ["decided", "late"]


@pytest.mark.parametrize("filter_text", ["state = LOST", "shape = 3", "priority > high", "state ="])
def test_an_invalid_filter_is_rejected(annotation: Service, filter_text: str) -> None:
    annotation.has_campaign()
    with pytest.raises(InvalidArgument) as raised:
        listed(annotation, filter_text)
    assert raised.value.reason == "FILTER_INVALID"


def test_a_cancelled_task_is_published_once_and_no_longer_leased(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    assert cancel(annotation, task).state == cancel(annotation, task).state == Task.CANCELLED
    assert [event.type for event in annotation.told()] == ["vesta.annotation.task.v1.cancelled"]
    assert annotation.told()[0].subject == task.name
    assert annotation.lease("bob") == []


def test_a_decided_task_cannot_be_cancelled(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.answer("ada", task, "van")
    with pytest.raises(FailedPrecondition) as raised:
        cancel(annotation, task)
    assert raised.value.reason == "TASK_DECIDED"

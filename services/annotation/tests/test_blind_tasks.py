"""Annotators of a blind task do not see the model's prediction of its item, in that task or in any other."""

import pytest
from annotation_builders import CAMPAIGN, PROJECT, FakeItems, Service, item, label, member
from vesta_common import trace
from vesta_contracts.annotation.v1 import (
    BatchCreateTasksRequest,
    CancelTaskRequest,
    GetTaskRequest,
    LeasePurpose,
    LeaseTasksRequest,
    ListTasksRequest,
    ReleaseTaskRequest,
    RenewLeaseRequest,
    Review,
    Task,
)

VERSION = f"{PROJECT}/models/vans/versions/3"
PROMPTS = {
    "pre_annotations": [label("van", score=0.5)],
    "model_version": VERSION,
    "prediction_certain": True,
    "selection_reason": "unsure",
}
OTHER = f"{PROJECT}/campaigns/other"


def is_prompted(task: Task) -> bool:
    """Whether a task contains a prediction: all of its fields or none."""
    said = [bool(getattr(task, field)) for field in PROMPTS]
    assert len(set(said)) == 1
    return said[0]


def readings(annotation: Service, task: Task, name: str, role: str) -> dict[str, Task]:
    """Returns the task from every call that returns it to the holder of its lease."""

    with trace.calling(member(name), role):
        leased = annotation.tasks.LeaseTasks(
            LeaseTasksRequest(parent=CAMPAIGN, purpose=LeasePurpose.LEASE_PURPOSE_ANNOTATE, count=100)
        ).tasks
        return {
            "lease": next(one for one in leased if one.name == task.name),
            "renew": annotation.tasks.RenewLease(RenewLeaseRequest(name=task.name)),
            "get": annotation.tasks.GetTask(GetTaskRequest(name=task.name)),
            "list": next(
                one
                for one in annotation.tasks.ListTasks(ListTasksRequest(parent=CAMPAIGN)).tasks
                if one.name == task.name
            ),
            "release": annotation.tasks.ReleaseTask(ReleaseTaskRequest(name=task.name)),
        }


def test_annotators_read_control_tasks_without_predictions(annotation: Service) -> None:
    annotation.has_campaign()
    (blind,) = annotation.has_tasks("blind", control=True, **PROMPTS)
    (shown,) = annotation.has_tasks("shown", **PROMPTS)
    for call, task in readings(annotation, blind, "ada", "annotator").items():
        assert not is_prompted(task), call
    for call, task in readings(annotation, shown, "ada", "annotator").items():
        assert is_prompted(task), call


def test_a_task_of_the_test_split_is_blind_even_if_created_with_a_suggestion(
    annotation: Service, items: FakeItems
) -> None:
    items.test.add(item("tested"))
    annotation.has_campaign()
    (task,) = annotation.has_tasks("tested", **PROMPTS)
    assert task.blind
    assert not any(is_prompted(found) for found in readings(annotation, task, "ada", "annotator").values())


def test_reviewers_see_predictions_except_of_tasks_that_they_answer(annotation: Service) -> None:
    annotation.has_campaign()
    (task,) = annotation.has_tasks("blind", control=True, **PROMPTS)
    found = {call: is_prompted(one) for call, one in readings(annotation, task, "rosa", "reviewer").items()}
    assert found == {"lease": False, "renew": False, "get": True, "list": True, "release": True}
    assert is_prompted(annotation.task(task))  # as services read it


def test_other_tasks_of_an_item_hide_predictions_while_its_blind_task_is_open(annotation: Service) -> None:
    annotation.has_campaign()
    annotation.has_campaign("other")
    (shown,) = annotation.has_tasks("one", **PROMPTS)
    request = BatchCreateTasksRequest(parent=OTHER, tasks=[Task(item=item("one"), control=True)])
    (blind,) = annotation.tasks.BatchCreateTasks(request).tasks
    assert not any(is_prompted(found) for found in readings(annotation, shown, "ada", "annotator").values())
    annotation.tasks.CancelTask(CancelTaskRequest(name=blind.name))
    assert all(is_prompted(found) for found in readings(annotation, shown, "ada", "annotator").values())


def test_a_rejected_blind_task_stays_blind(annotation: Service) -> None:
    annotation.has_campaign(review_share=1)
    (task,) = annotation.has_tasks("one", control=True, **PROMPTS)

    def is_seen_by_ada() -> bool:
        with trace.calling(member("ada"), "annotator"):
            return is_prompted(annotation.tasks.GetTask(GetTaskRequest(name=task.name)))

    annotation.answer("ada", task, "van")
    assert annotation.task(task).state == Task.IN_REVIEW
    assert not is_seen_by_ada()
    assert is_prompted(annotation.lease_to_review("rosa")[0])
    annotation.review("rosa", task, Review.REJECT, comment="look again")
    assert not is_seen_by_ada()


@pytest.mark.parametrize("role", ["annotator", "reviewer"])
def test_the_etag_of_a_task_does_not_depend_on_hidden_fields(annotation: Service, role: str) -> None:
    annotation.has_campaign()
    (task,) = annotation.has_tasks("one", control=True, **PROMPTS)
    with trace.calling(member("ada"), role):
        found = annotation.tasks.GetTask(GetTaskRequest(name=task.name))
    assert (found.etag == task.etag) == (role == "reviewer")

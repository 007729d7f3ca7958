"""Campaigns of a detection dataset: boxes of several annotators are matched and merged, and disputed objects go to a reviewer."""

import pytest
from annotation_builders import CAMPAIGN, FakeDatasets, Service, label
from vesta_common.errors import InvalidArgument
from vesta_contracts.annotation.v1 import GetAgreementRequest, Review, Task
from vesta_contracts.common.v1 import Annotation, PixelBox, TaskType


@pytest.fixture(autouse=True)
def _detection(datasets: FakeDatasets) -> None:
    datasets.task_type = TaskType.TASK_TYPE_DETECTION


def a_box(x: float, concept: str = "van") -> Annotation:
    return Annotation(concept=concept, box=PixelBox(x_min_px=x, y_min_px=4, x_max_px=x + 20, y_max_px=24))


def answered(annotation: Service, *answers: list[Annotation]) -> Task:
    """Returns a task with these answers."""
    task = annotation.has_task(annotators_per_task=len(answers))
    for name, boxes in zip(("ada", "bob", "cyd"), answers, strict=False):
        assert annotation.lease(name)
        annotation.submit(name, task, *boxes)
    return annotation.task(task)


def test_the_boxes_of_a_majority_are_merged(annotation: Service) -> None:
    task = answered(annotation, [a_box(0), a_box(40)], [a_box(40), a_box(2)], [a_box(4)])
    assert task.state == Task.ACCEPTED
    assert sorted((box.concept, box.box.x_min_px) for box in task.accepted) == [("van", 2), ("van", 40)]
    (event,) = [event for event in annotation.told() if event.type.endswith(".accepted")]
    assert list(event.payload.annotations) == list(task.accepted)
    assert [name.rpartition("/")[2] for name in event.payload.annotators] == ["ada", "bob"]
    agreement = annotation.campaigns.GetAgreement(GetAgreementRequest(name=CAMPAIGN))
    assert [one.accuracy for one in agreement.annotators] == [1, 1, 0]


def test_no_object_is_an_answer_that_annotators_can_agree_on(annotation: Service) -> None:
    task = answered(annotation, [], [])
    assert (task.state, len(task.accepted)) == (Task.ACCEPTED, 0)


def test_an_object_that_half_of_the_annotators_drew_requires_a_review(annotation: Service) -> None:
    task = answered(annotation, [a_box(0), a_box(40)], [a_box(0)])
    assert task.state == Task.IN_REVIEW
    assert annotation.lease_to_review("rosa")
    with pytest.raises(InvalidArgument) as refused:
        annotation.review("rosa", task, Review.ACCEPT)
    assert refused.value.reason == "NO_CONSENSUS"
    annotation.review("rosa", task, Review.CORRECT, a_box(0), a_box(41))
    assert [box.box.x_min_px for box in annotation.task(task).accepted] == [0, 41]


def test_another_shape_than_a_box_is_refused(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    with pytest.raises(InvalidArgument, match="for detection use a box") as refused:
        annotation.submit("ada", task, label("van"))
    assert refused.value.reason == "SHAPE_NOT_OF_TASK"


def test_alpha_measures_how_much_boxes_overlap(annotation: Service) -> None:
    annotation.has_campaign(annotators_per_task=2)
    for place, shift in ((0, 0), (10, 1), (20, 2)):
        (task,) = annotation.has_tasks(f"item{place}")
        for name, x in (("ada", place), ("bob", place + shift)):
            assert annotation.lease(name)
            annotation.submit(name, task, a_box(x))
    alpha = annotation.campaigns.GetAgreement(GetAgreementRequest(name=CAMPAIGN)).alpha
    assert 0.8 < alpha < 1

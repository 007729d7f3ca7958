"""Campaigns of a detection dataset: boxes of several annotators are matched and merged, and disputed objects go to a reviewer."""

import pytest
from annotation_builders import CAMPAIGN, FakeDatasets, Service, label
from vesta_annotation.task_types.objects import ObjectTask
from vesta_common.errors import InvalidArgument
from vesta_common.messages import without
from vesta_contracts.annotation.v1 import (
    GetAgreementRequest,
    GetReviewRequest,
    ListTasksRequest,
    Review,
    Task,
    TaskView,
)
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
    accepted = annotation.task(task)
    assert [box.box.x_min_px for box in accepted.accepted] == [0, 41]
    assert not accepted.agreed
    assert not accepted.disagreements


def test_a_reviewer_decides_only_the_disputed_objects(annotation: Service) -> None:
    task = answered(annotation, [a_box(0), a_box(40)], [a_box(20, "car"), a_box(0)])
    (leased,) = annotation.lease_to_review("rosa")
    assert [box.box.x_min_px for box in leased.agreed] == [0]
    assert sorted(one.suggestion.box.x_min_px for one in leased.disagreements) == [20, 40]
    assert [member.annotator.rpartition("/")[2] for one in leased.disagreements for member in one.opinions] == [
        "ada",
        "bob",
    ]
    review = annotation.review("rosa", task, Review.RESOLVE, a_box(41))
    assert list(review.disagreements) == list(leased.disagreements)
    assert annotation.reviews.GetReview(GetReviewRequest(name=review.name)) == review
    assert [box.box.x_min_px for box in annotation.task(task).accepted] == [41, 0]


def test_another_round_begins_without_the_disagreements_of_the_last(annotation: Service) -> None:
    task = answered(annotation, [a_box(0)], [a_box(40)])
    assert annotation.lease_to_review("rosa")
    annotation.review("rosa", task, Review.REJECT, comment="look again")
    assert not annotation.task(task).disagreements
    for name in ("ada", "bob"):
        assert annotation.lease(name)
        annotation.submit(name, task, a_box(0))
    assert annotation.task(task).state == Task.ACCEPTED


def test_a_reviewer_can_drop_all_disputed_objects(annotation: Service) -> None:
    task = answered(annotation, [a_box(0)], [])
    assert annotation.lease_to_review("rosa")
    annotation.review("rosa", task, Review.RESOLVE)
    decided = annotation.task(task)
    assert (decided.state, len(decided.accepted)) == (Task.ACCEPTED, 0)


def test_agreement_is_measured_by_annotator_and_concept(annotation: Service) -> None:
    answered(annotation, [a_box(0), a_box(40, "car")], [a_box(0), a_box(40, "car")], [a_box(0)])
    agreement = annotation.campaigns.GetAgreement(GetAgreementRequest(name=CAMPAIGN))
    assert [(one.concept, one.object_count, one.f1) for one in agreement.concepts] == [("car", 2, 0.5), ("van", 3, 1)]
    ada, _, cyd = agreement.annotators
    assert (ada.f1, cyd.f1) == (1, pytest.approx(2 / 3))
    assert [(one.concept, one.object_count, one.f1) for one in cyd.concepts] == [("car", 0, 0), ("van", 1, 1)]
    assert [(one.concept, one.f1) for one in ada.concepts] == [("car", 1), ("van", 1)]


def test_another_shape_than_a_box_is_refused(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    with pytest.raises(InvalidArgument, match="for detection use box") as refused:
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


def test_agreement_is_estimated_from_some_tasks_and_counts_all(
    annotation: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ObjectTask, "tasks_measured_max", 2)
    annotation.has_campaign(annotators_per_task=2)
    for task in annotation.has_tasks("one", "two", "three", "four"):
        for name in ("ada", "bob"):
            assert annotation.lease(name)
            annotation.submit(name, task, a_box(0))
    agreement = annotation.campaigns.GetAgreement(GetAgreementRequest(name=CAMPAIGN))
    assert (agreement.task_count, agreement.alpha) == (4, 1)
    assert [(one.submission_count, one.decided_count, one.accuracy, one.f1) for one in agreement.annotators] == [
        (4, 4, 1, 1),
        (4, 4, 1, 1),
    ]
    assert [(one.concept, one.object_count) for one in agreement.concepts] == [("van", 4)]


def test_the_basic_view_of_tasks_has_no_annotations(annotation: Service) -> None:
    answered(annotation, [a_box(0), a_box(40)], [a_box(0)])
    (whole,) = annotation.tasks.ListTasks(ListTasksRequest(parent=CAMPAIGN)).tasks
    (basic,) = annotation.tasks.ListTasks(ListTasksRequest(parent=CAMPAIGN, view=TaskView.TASK_VIEW_BASIC)).tasks
    assert len(whole.agreed) == len(whole.disagreements) == 1
    assert basic == without(whole, "pre_annotations", "accepted", "agreed", "disagreements")


def test_suggestions_have_the_shapes_of_the_task_type(annotation: Service) -> None:
    annotation.has_campaign()
    with pytest.raises(InvalidArgument, match="has the shape image_label; for detection use box") as refused:
        annotation.has_tasks("one", pre_annotations=[a_box(0), label("van")])
    assert (refused.value.reason, refused.value.violations[0].field) == (
        "SHAPE_NOT_OF_TASK",
        "tasks[0].pre_annotations[1]",
    )


def test_an_object_that_two_of_three_drew_in_different_places_is_decided_by_the_reviewer(annotation: Service) -> None:
    task = answered(annotation, [a_box(0), a_box(40)], [a_box(12), a_box(40)], [a_box(40)])
    (leased,) = annotation.lease_to_review("rosa")
    assert [box.box.x_min_px for box in leased.agreed] == [40]
    (split,) = leased.disagreements
    assert [one.annotator.rpartition("/")[2] for one in split.opinions] == ["ada", "bob"]
    annotation.review("rosa", task, Review.RESOLVE, a_box(0))
    assert sorted(box.box.x_min_px for box in annotation.task(task).accepted) == [0, 40]
    agreement = annotation.campaigns.GetAgreement(GetAgreementRequest(name=CAMPAIGN))
    assert [(one.accuracy, one.f1) for one in agreement.annotators] == [(1, 1), (0, 0.5), (0, pytest.approx(2 / 3))]

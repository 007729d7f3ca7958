"""The ReviewService: decisions, and their effect on the task."""

from datetime import UTC

import pytest
from annotation_builders import LEASE, Service, label, member
from vesta_common.errors import FailedPrecondition, InvalidArgument, NotFound
from vesta_contracts.annotation.v1 import GetReviewRequest, ListReviewsRequest, Review, Task
from vesta_contracts.common.v1 import Annotation, PixelBox


def test_a_correction_is_accepted_for_the_reviewer(annotation: Service) -> None:
    task = annotation.is_disputed()
    annotation.lease_to_review("rosa")
    made = annotation.review("rosa", task, Review.CORRECT, label("bus"), comment="it has seats")
    assert (made.reviewer, made.comment) == (member("rosa"), "it has seats")
    assert made.create_time.ToDatetime(UTC) == annotation.clock.now()
    assert annotation.reviews.GetReview(GetReviewRequest(name=made.name)) == made
    decided = annotation.task(task)
    assert (decided.state, list(decided.accepted), list(decided.leases)) == (Task.ACCEPTED, [label("bus")], [])
    (event,) = annotation.told()
    assert (event.payload.reviewer, list(event.payload.annotations)) == (member("rosa"), [label("bus")])
    assert list(event.payload.annotators) == [member("ada"), member("bob")]


def test_a_sampled_majority_can_be_accepted(annotation: Service) -> None:
    task = annotation.has_task(annotators_per_task=3, review_share=1)
    for name, concept in (("ada", "van"), ("bob", "car"), ("cyd", "van")):
        annotation.answer(name, task, concept)
    annotation.lease_to_review("rosa")
    annotation.review("rosa", task, Review.ACCEPT)
    (event,) = annotation.told()
    assert (list(event.payload.annotations), event.payload.reviewer) == ([label("van")], member("rosa"))
    assert list(event.payload.annotators) == [member("ada"), member("cyd")]


def test_a_rejection_starts_another_round_and_is_published(annotation: Service) -> None:
    task = annotation.is_disputed()
    annotation.lease_to_review("rosa")
    annotation.review("rosa", task, Review.REJECT, comment="look at the wheels")
    again = annotation.task(task)
    assert (again.state, again.submission_count, again.rejection_count) == (Task.OPEN, 0, 1)
    assert list(again.leases) == []
    assert annotation.answer("bob", task, "van").round == 2
    annotation.answer("ada", task, "van")
    rejected, accepted = annotation.told()
    assert rejected.type == "vesta.annotation.task.v1.rejected"
    assert (rejected.payload.comment, rejected.payload.reviewer) == ("look at the wheels", member("rosa"))
    assert list(accepted.payload.annotators) == [member("bob"), member("ada")]


@pytest.mark.parametrize(
    ("decision", "annotations", "reason"),
    [
        (Review.ACCEPT, (), "NO_CONSENSUS"),
        (Review.REJECT, (), "COMMENT_MISSING"),
        (Review.CORRECT, (label("van"), label("car")), "LABEL_NOT_SINGLE"),
        (Review.CORRECT, (Annotation(concept="van", box=PixelBox(x_max_px=99, y_max_px=9)),), "SHAPE_OUTSIDE_IMAGE"),
        (Review.DECISION_UNSPECIFIED, (), "FIELD_INVALID"),
    ],
)
def test_a_review_without_a_decision_is_rejected_and_changes_nothing(
    annotation: Service, decision: "Review.Decision.ValueType", annotations: tuple, reason: str
) -> None:
    task = annotation.is_disputed()
    annotation.lease_to_review("rosa")
    with pytest.raises(InvalidArgument) as raised:
        annotation.review("rosa", task, decision, *annotations)
    assert raised.value.reason == reason
    assert annotation.task(task).state == Task.IN_REVIEW
    assert not annotation.reviews.ListReviews(ListReviewsRequest(parent=task.name)).reviews


def test_only_the_lease_holder_can_review(annotation: Service) -> None:
    task = annotation.is_disputed()
    annotation.lease_to_review("rosa")
    with pytest.raises(FailedPrecondition) as raised:
        annotation.review("rolf", task, Review.CORRECT, label("van"))
    assert raised.value.reason == "LEASE_LOST"
    annotation.clock.advance(LEASE)
    with pytest.raises(FailedPrecondition, match="lease the task again"):
        annotation.review("rosa", task, Review.CORRECT, label("van"))


def test_an_open_task_cannot_be_reviewed(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("rosa")
    with pytest.raises(FailedPrecondition) as raised:
        annotation.review("rosa", task, Review.CORRECT, label("van"))
    assert raised.value.reason == "TASK_NOT_IN_REVIEW"


def test_a_decided_task_cannot_be_reviewed_again(annotation: Service) -> None:
    task = annotation.is_disputed()
    annotation.lease_to_review("rosa")
    annotation.review("rosa", task, Review.CORRECT, label("van"))
    with pytest.raises(FailedPrecondition) as raised:
        annotation.review("rosa", task, Review.CORRECT, label("car"))
    assert raised.value.reason == "TASK_DECIDED"
    assert len(annotation.told()) == 1


def test_a_repeated_request_returns_the_first_response_and_publishes_nothing_more(annotation: Service) -> None:
    task = annotation.is_disputed()
    annotation.lease_to_review("rosa")
    first = annotation.review("rosa", task, Review.REJECT, comment="again", request_id="r1")
    assert annotation.review("rosa", task, Review.REJECT, comment="again", request_id="r1") == first
    assert annotation.task(task).rejection_count == len(annotation.told()) == 1


def test_reviews_are_listed_by_time_in_pages(annotation: Service) -> None:
    task = annotation.has_task(review_share=1)
    comments = ["once", "twice", "thrice"]
    for comment in comments:
        annotation.answer("ada", task, "van")
        annotation.lease_to_review("rosa")
        annotation.review("rosa", task, Review.REJECT, comment=comment)
    request, found = ListReviewsRequest(parent=task.name, page_size=2), []
    while not found or request.page_token:
        page = annotation.reviews.ListReviews(request)
        found += [one.comment for one in page.reviews]
        request.page_token = page.next_page_token
    assert found == comments


def test_unknown_names_are_not_found(annotation: Service) -> None:
    task = annotation.has_task()
    for call in (
        lambda: annotation.review("rosa", Task(name=f"{task.name}x"), Review.ACCEPT),
        lambda: annotation.reviews.GetReview(GetReviewRequest(name=f"{task.name}/reviews/gone")),
        lambda: annotation.reviews.ListReviews(ListReviewsRequest(parent=f"{task.name}x")),
    ):
        with pytest.raises(NotFound):
            call()

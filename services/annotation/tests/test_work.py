"""The way of a task: handed out, answered, agreed on or reviewed, decided once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from annotation_builders import ADA, BEN, DATASET, PROJECT, ROSA, Annotation
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from vesta_common import trace
from vesta_common.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    VestaError,
)
from vesta_contracts.annotation.v1 import (
    Campaign,
    CancelTaskRequest,
    CreateCampaignRequest,
    DeleteCampaignRequest,
    GetAgreementRequest,
    GetCampaignRequest,
    LeasePurpose,
    LeaseTasksRequest,
    ListCampaignsRequest,
    ListReviewsRequest,
    ListSubmissionsRequest,
    ListTasksRequest,
    ReleaseTaskRequest,
    RenewLeaseRequest,
    Review,
    Task,
    UpdateCampaignRequest,
)


def refusal(error: type[VestaError], call, reason: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error) as refused:
        call()
    assert refused.value.reason == reason


def test_one_answer_decides_a_task_of_one_replica_and_is_told_once(annotation: Annotation) -> None:
    campaign = annotation.a_campaign()
    annotation.some_tasks(campaign, control=True, model_version="projects/acme/models/m/versions/1")
    (task,) = annotation.lease(campaign, ADA)
    annotation.submit(task, ADA, "van")
    decided = annotation.get(task)
    assert (decided.state, [one.concept for one in decided.accepted]) == (Task.ACCEPTED, ["van"])
    assert annotation.told() == ["accepted"]
    assert annotation.counts(campaign).accepted_count == 1


def test_a_repeated_answer_returns_the_first_and_is_told_no_second_time(annotation: Annotation) -> None:
    campaign = annotation.a_campaign()
    annotation.some_tasks(campaign)
    (task,) = annotation.lease(campaign, ADA)
    first = annotation.submit(task, ADA, "van", request_id="r")
    assert annotation.submit(task, ADA, "van", request_id="r") == first
    assert annotation.told() == ["accepted"]


def test_agreeing_answers_decide_and_disagreeing_ones_go_to_review(annotation: Annotation) -> None:
    campaign = annotation.a_campaign(replicas=2)
    same, other = annotation.some_tasks(campaign, 2)
    for member, answers in ((ADA, ("van", "van")), (BEN, ("van", "car"))):
        annotation.lease(campaign, member)
        annotation.submit(same, member, answers[0])
        annotation.submit(other, member, answers[1])
    assert annotation.get(same).state == Task.ACCEPTED
    assert annotation.get(other).state == Task.IN_REVIEW


def test_a_correction_is_accepted_in_the_name_of_the_reviewer(annotation: Annotation) -> None:
    task, campaign = _in_review(annotation)
    annotation.lease(campaign, ROSA, review=True)
    annotation.review(task, ROSA, Review.CORRECT, ["car"])
    assert [one.concept for one in annotation.get(task).accepted] == ["car"]
    assert annotation.told() == ["accepted"]


def test_a_rejection_asks_again_and_the_second_round_decides(annotation: Annotation) -> None:
    task, campaign = _in_review(annotation)
    annotation.lease(campaign, ROSA, review=True)
    annotation.review(task, ROSA, Review.REJECT, comment="look at the wheels")
    again = annotation.get(task)
    assert (again.state, again.submission_count, again.rejection_count) == (Task.OPEN, 0, 1)
    for member in (ADA, BEN):
        annotation.lease(campaign, member)
        annotation.submit(task, member, "car")
    assert annotation.get(task).state == Task.ACCEPTED
    assert annotation.told() == ["rejected", "accepted"]


def test_the_majority_can_be_accepted_and_a_tie_cannot(annotation: Annotation) -> None:
    task, campaign = _in_review(annotation)
    annotation.lease(campaign, ROSA, review=True)
    refusal(InvalidArgument, lambda: annotation.review(task, ROSA, Review.ACCEPT), "NO_CONSENSUS")
    refusal(InvalidArgument, lambda: annotation.review(task, ROSA, Review.REJECT), "COMMENT_MISSING")


def test_a_share_of_agreed_answers_is_reviewed_all_the_same(annotation: Annotation) -> None:
    campaign = annotation.a_campaign(review_share=1.0)
    annotation.some_tasks(campaign)
    (task,) = annotation.lease(campaign, ADA)
    annotation.submit(task, ADA, "van")
    annotation.lease(campaign, ROSA, review=True)
    annotation.review(task, ROSA, Review.ACCEPT)
    assert annotation.get(task).state == Task.ACCEPTED
    refusal(FailedPrecondition, lambda: annotation.review(task, ROSA, Review.ACCEPT), "TASK_DECIDED")


def _in_review(annotation: Annotation) -> tuple[Task, Campaign]:
    """A task on which two experts disagree."""
    campaign = annotation.a_campaign(replicas=2)
    (task,) = annotation.some_tasks(campaign)
    for member, concept in ((ADA, "van"), (BEN, "car")):
        annotation.lease(campaign, member)
        annotation.submit(task, member, concept)
    return task, campaign


def test_racing_annotators_are_never_handed_the_same_task(annotation: Annotation) -> None:
    campaign = annotation.a_campaign()
    annotation.some_tasks(campaign, 40)
    members = [f"{PROJECT}/members/m{index}" for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        handed = list(pool.map(lambda member: [task.name for task in annotation.lease(campaign, member, 5)], members))
    names = [name for batch in handed for name in batch]
    assert len(names) == len(set(names))


def test_a_lease_that_ran_out_goes_to_the_next_and_the_first_is_told(annotation: Annotation) -> None:
    campaign = annotation.a_campaign(lease_duration=Duration(seconds=60))
    annotation.some_tasks(campaign)
    (task,) = annotation.lease(campaign, ADA)
    assert annotation.lease(campaign, BEN) == []
    annotation.clock.advance(timedelta(seconds=61))
    assert [one.name for one in annotation.lease(campaign, BEN)] == [task.name]
    refusal(FailedPrecondition, lambda: annotation.submit(task, ADA, "van"), "LEASE_LOST")


def test_a_renewed_lease_lasts_and_a_released_one_is_free_at_once(annotation: Annotation) -> None:
    campaign = annotation.a_campaign(lease_duration=Duration(seconds=60))
    annotation.some_tasks(campaign)
    (task,) = annotation.lease(campaign, ADA)
    annotation.clock.advance(timedelta(seconds=50))
    with annotation.as_member(ADA):
        annotation.tasks.RenewLease(RenewLeaseRequest(name=task.name))
    annotation.clock.advance(timedelta(seconds=50))
    assert annotation.lease(campaign, BEN) == []
    with annotation.as_member(ADA):
        annotation.tasks.ReleaseTask(ReleaseTaskRequest(name=task.name))
    assert len(annotation.lease(campaign, BEN)) == 1


def test_urgent_tasks_come_first(annotation: Annotation) -> None:
    campaign = annotation.a_campaign()
    annotation.some_tasks(campaign, 3)
    with annotation.postgres.transaction() as connection:
        connection.execute("UPDATE tasks SET priority = 5 WHERE item LIKE '%%i2'")
    assert annotation.lease(campaign, ADA, 1)[0].item.endswith("i2")


def test_nobody_answers_a_task_twice_in_a_round(annotation: Annotation) -> None:
    campaign = annotation.a_campaign(replicas=2)
    (task,) = annotation.some_tasks(campaign)
    annotation.lease(campaign, ADA)
    annotation.submit(task, ADA, "van")
    assert annotation.lease(campaign, ADA) == []
    refusal(AlreadyExists, lambda: annotation.submit(task, ADA, "car"), "TASK_ANSWERED")


def test_reviews_are_for_reviewers_and_never_of_ones_own_answer(annotation: Annotation) -> None:
    task, campaign = _in_review(annotation)
    request = LeaseTasksRequest(parent=campaign.name, purpose=LeasePurpose.LEASE_PURPOSE_REVIEW)
    with annotation.as_member(ADA, "annotator"):
        refusal(PermissionDenied, lambda: annotation.tasks.LeaseTasks(request), "ROLE_TOO_LOW")
    assert annotation.lease(campaign, ADA, review=True) == []
    assert [one.name for one in annotation.lease(campaign, ROSA, review=True)] == [task.name]


def test_a_task_in_review_takes_no_more_answers_and_an_open_one_no_review(annotation: Annotation) -> None:
    task, campaign = _in_review(annotation)
    annotation.lease(campaign, ROSA, review=True)
    refusal(FailedPrecondition, lambda: annotation.submit(task, ROSA, "van"), "TASK_IN_REVIEW")
    other = annotation.a_campaign("d")
    annotation.some_tasks(other)
    (fresh,) = annotation.lease(other, ROSA)
    refusal(FailedPrecondition, lambda: annotation.review(fresh, ROSA, Review.CORRECT, ["van"]), "TASK_NOT_IN_REVIEW")


@pytest.mark.parametrize(
    ("concepts", "reason"), [(("bus",), "CONCEPT_NOT_ASKED"), (("van", "car"), "LABEL_NOT_SINGLE")]
)
def test_an_answer_that_was_not_asked_for_is_refused(
    annotation: Annotation, concepts: tuple[str, ...], reason: str
) -> None:
    campaign = annotation.a_campaign()
    annotation.some_tasks(campaign)
    (task,) = annotation.lease(campaign, ADA)
    refusal(InvalidArgument, lambda: annotation.submit(task, ADA, *concepts), reason)
    assert annotation.get(task).state == Task.OPEN


def test_several_labels_are_taken_where_they_are_asked(annotation: Annotation) -> None:
    campaign = annotation.a_campaign(multi_label=True)
    annotation.some_tasks(campaign)
    (task,) = annotation.lease(campaign, ADA)
    annotation.submit(task, ADA, "van", "car")
    assert annotation.get(task).state == Task.ACCEPTED


def test_a_cancelled_task_is_told_and_stays_cancelled(annotation: Annotation) -> None:
    campaign = annotation.a_campaign()
    (task,) = annotation.some_tasks(campaign)
    for _ in range(2):
        assert annotation.tasks.CancelTask(CancelTaskRequest(name=task.name)).state == Task.CANCELLED
    assert annotation.told() == ["cancelled"]
    assert annotation.lease(campaign, ADA) == []


def test_closing_a_campaign_cancels_what_is_undecided_and_takes_no_more(annotation: Annotation) -> None:
    campaign = annotation.a_campaign()
    annotation.some_tasks(campaign, 3)
    closed = Campaign(name=campaign.name, state=Campaign.CLOSED)
    annotation.campaigns.UpdateCampaign(UpdateCampaignRequest(campaign=closed, update_mask=FieldMask(paths=["state"])))
    assert annotation.counts(campaign).cancelled_count == 3
    refusal(FailedPrecondition, lambda: annotation.some_tasks(campaign), "CAMPAIGN_CLOSED")


def test_an_item_has_one_undecided_task(annotation: Annotation) -> None:
    campaign = annotation.a_campaign()
    first = annotation.some_tasks(campaign, 3)
    assert [task.name for task in annotation.some_tasks(campaign, 3)] == [task.name for task in first]
    assert annotation.counts(campaign).open_count == 3


def test_tasks_are_listed_by_filter_page_by_page(annotation: Annotation) -> None:
    campaign = annotation.a_campaign()
    tasks = annotation.some_tasks(campaign, 5)
    (leased,) = annotation.lease(campaign, ADA, 1)
    annotation.submit(leased, ADA, "van")
    request = ListTasksRequest(parent=campaign.name, filter="state = OPEN", page_size=3)
    first = annotation.tasks.ListTasks(request)
    request.page_token = first.next_page_token
    second = annotation.tasks.ListTasks(request)
    found = [task.name for task in [*first.tasks, *second.tasks]]
    assert found == [task.name for task in tasks if task.name != leased.name]
    assert second.next_page_token == ""


def test_agreement_is_measured_over_shared_tasks(annotation: Annotation) -> None:
    campaign = annotation.a_campaign(replicas=2)
    tasks = annotation.some_tasks(campaign, 4)
    for member, answers in ((ADA, "vvcc"), (BEN, "vvcv")):
        annotation.lease(campaign, member)
        for task, letter in zip(tasks, answers, strict=True):
            annotation.submit(task, member, {"v": "van", "c": "car"}[letter])
    found = annotation.campaigns.GetAgreement(GetAgreementRequest(name=campaign.name))
    assert found.task_count == 4
    assert 0.0 < found.alpha < 1.0
    assert [one.submission_count for one in found.annotators] == [4, 4]


def test_submissions_and_reviews_are_read_in_order(annotation: Annotation) -> None:
    task, campaign = _in_review(annotation)
    annotation.lease(campaign, ROSA, review=True)
    annotation.review(task, ROSA, Review.CORRECT, ["car"])
    answers = annotation.submissions.ListSubmissions(ListSubmissionsRequest(parent=task.name)).submissions
    assert [one.annotator for one in answers] == [ADA, BEN]
    reviews = annotation.reviews.ListReviews(ListReviewsRequest(parent=task.name)).reviews
    assert [one.reviewer for one in reviews] == [ROSA]


def test_work_is_handed_to_nobody_unknown(annotation: Annotation) -> None:
    from vesta_annotation.api.task_service import calling_member

    with trace.calling(""):
        refusal(Unauthenticated, calling_member, "CALLER_UNKNOWN")


def test_what_is_not_there_is_not_found_and_what_is_there_is_not_made_again(annotation: Annotation) -> None:
    annotation.a_campaign()
    refusal(AlreadyExists, annotation.a_campaign, "RESOURCE_EXISTS")
    missing = GetCampaignRequest(name=f"{PROJECT}/campaigns/none")
    refusal(NotFound, lambda: annotation.campaigns.GetCampaign(missing), "RESOURCE_NOT_FOUND")
    elsewhere = Campaign(dataset=f"{PROJECT}/datasets/none")
    refusal(
        NotFound,
        lambda: annotation.campaigns.CreateCampaign(CreateCampaignRequest(parent=PROJECT, campaign=elsewhere)),
        "RESOURCE_NOT_FOUND",
    )


def test_a_purpose_and_a_decision_are_required(annotation: Annotation) -> None:
    campaign = annotation.a_campaign()
    with annotation.as_member(ADA):
        refusal(
            InvalidArgument,
            lambda: annotation.tasks.LeaseTasks(LeaseTasksRequest(parent=campaign.name)),
            "FIELD_INVALID",
        )
    (task,) = annotation.some_tasks(campaign)
    refusal(InvalidArgument, lambda: annotation.review(task, ROSA, Review.DECISION_UNSPECIFIED), "FIELD_INVALID")


def test_a_stale_etag_changes_nothing_and_a_deleted_campaign_is_gone(annotation: Annotation) -> None:
    campaign = annotation.a_campaign()
    stale = Campaign(name=campaign.name, display_name="new", etag="0" * 16)
    mask = FieldMask(paths=["display_name"])
    refusal(
        Aborted,
        lambda: annotation.campaigns.UpdateCampaign(UpdateCampaignRequest(campaign=stale, update_mask=mask)),
        "ETAG_STALE",
    )
    annotation.campaigns.DeleteCampaign(DeleteCampaignRequest(name=campaign.name))
    assert not annotation.campaigns.ListCampaigns(ListCampaignsRequest(parent=PROJECT)).campaigns
    assert DATASET.startswith(PROJECT)

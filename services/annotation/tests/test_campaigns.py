"""The CampaignService on a real database."""

import pytest
from annotation_builders import CAMPAIGN, DATASET, LEASE, PROJECT, FakeDatasets, Service, item, label, member
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from vesta_common.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from vesta_contracts.annotation.v1 import (
    BatchCreateTasksRequest,
    Campaign,
    CampaignCounts,
    DeleteCampaignRequest,
    GetAgreementRequest,
    GetCampaignRequest,
    ListCampaignsRequest,
    Review,
    Task,
    UpdateCampaignRequest,
)


def test_a_campaign_is_active_with_one_annotator_per_task_by_default(annotation: Service) -> None:
    made = annotation.has_campaign(instructions="Look at the *wheels*.", concepts=["van", "car"])
    assert (made.name, made.state, made.annotators_per_task) == (CAMPAIGN, Campaign.ACTIVE, 1)
    found = annotation.campaigns.GetCampaign(GetCampaignRequest(name=CAMPAIGN))
    assert (found.instructions, list(found.concepts), found.etag) == (
        "Look at the *wheels*.",
        ["van", "car"],
        made.etag,
    )


def test_a_campaign_without_an_id_gets_one(annotation: Service) -> None:
    assert annotation.has_campaign("").name != annotation.has_campaign("").name


def test_a_campaign_requires_an_existing_dataset(annotation: Service) -> None:
    with pytest.raises(NotFound, match="datasets/cars"):
        annotation.has_campaign(dataset=f"{PROJECT}/datasets/cars")


def test_a_campaign_name_is_unique(annotation: Service) -> None:
    annotation.has_campaign()
    with pytest.raises(AlreadyExists) as raised:
        annotation.has_campaign()
    assert raised.value.reason == "RESOURCE_EXISTS"


def test_a_repeated_request_returns_the_first_campaign_after_its_dataset_is_deleted(
    annotation: Service, datasets: FakeDatasets
) -> None:
    made = annotation.has_campaign("", request_id="r1")
    datasets.gone = True
    assert annotation.has_campaign("", request_id="r1") == made


def test_a_request_id_cannot_be_reused_for_another_request(annotation: Service) -> None:
    annotation.has_campaign(request_id="r1")
    with pytest.raises(InvalidArgument) as raised:
        annotation.has_campaign("cars", request_id="r1")
    assert raised.value.reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"dataset": ""}, "campaign.dataset"),
        ({"dataset": "vans"}, "campaign.dataset"),
        ({"review_share": 1.5}, "campaign.review_share"),
        ({"annotators_per_task": 21}, "campaign.annotators_per_task"),
        ({"lease_duration": Duration(seconds=90_000)}, "campaign.lease_duration"),
        ({"concepts": [""]}, "campaign.concepts[0]"),
    ],
)
def test_an_invalid_field_is_named(annotation: Service, fields: dict[str, object], wrong: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        annotation.has_campaign(**fields)
    assert (raised.value.reason, raised.value.violations[0].field) == ("FIELD_INVALID", wrong)


def test_campaigns_are_listed_by_name_in_pages_with_their_counts(annotation: Service) -> None:
    for campaign_id in ("vans", "bikes", "cars"):
        annotation.has_campaign(campaign_id)
    annotation.has_tasks("one", "two")
    request = ListCampaignsRequest(parent=PROJECT, page_size=2)
    first = annotation.campaigns.ListCampaigns(request)
    request.page_token = first.next_page_token
    second = annotation.campaigns.ListCampaigns(request)
    found = [(one.name.rpartition("/")[2], one.counts.open_count) for one in [*first.campaigns, *second.campaigns]]
    assert found == [("bikes", 0), ("cars", 0), ("vans", 2)]
    assert (len(first.campaigns), second.next_page_token) == (2, "")


def test_only_the_fields_of_the_mask_change(annotation: Service) -> None:
    annotation.has_campaign(display_name="Vans", instructions="Look.")
    wanted = Campaign(name=CAMPAIGN, display_name="Lorries", instructions="Don't.")
    updated = annotation.campaigns.UpdateCampaign(
        UpdateCampaignRequest(campaign=wanted, update_mask=FieldMask(paths=["display_name"]))
    )
    assert (updated.display_name, updated.instructions, updated.state) == ("Lorries", "Look.", Campaign.ACTIVE)


def test_fields_that_answers_depend_on_cannot_change(annotation: Service) -> None:
    annotation.has_campaign()
    with pytest.raises(InvalidArgument) as raised:
        annotation.campaigns.UpdateCampaign(
            UpdateCampaignRequest(
                campaign=Campaign(name=CAMPAIGN, annotators_per_task=3),
                update_mask=FieldMask(paths=["annotators_per_task"]),
            )
        )
    assert raised.value.reason == "FIELD_IMMUTABLE"


def test_a_stale_etag_is_rejected(annotation: Service) -> None:
    stale = annotation.has_campaign().etag
    annotation.set_campaign(display_name="Vans", etag=stale)
    with pytest.raises(Aborted) as raised:
        annotation.set_campaign(display_name="Lorries", etag=stale)
    assert raised.value.reason == "ETAG_STALE"


def test_answers_do_not_change_the_etag(annotation: Service) -> None:
    etag = annotation.has_campaign().etag
    annotation.answer("ada", annotation.has_tasks("one")[0], "van")
    annotation.set_campaign(display_name="Vans", etag=etag)


def test_counts_follow_the_answers(annotation: Service) -> None:
    annotation.has_campaign(annotators_per_task=2)
    agreed, disputed, rejected, _ = annotation.has_tasks("one", "two", "three", "four")
    for task, bob in ((agreed, "van"), (disputed, "car"), (rejected, "car")):
        annotation.answer("ada", task, "van")
        annotation.answer("bob", task, bob)
    annotation.lease_to_review("rosa", count=2)
    annotation.review("rosa", rejected, Review.REJECT, comment="look again")
    assert annotation.counts() == CampaignCounts(
        open_count=2, in_review_count=1, accepted_count=1, submission_count=6, rejection_count=1
    )


def test_a_paused_campaign_leases_no_tasks_and_accepts_answers(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    annotation.set_campaign(state=Campaign.PAUSED)
    assert annotation.lease("ada") == []
    annotation.submit("ada", task, label("van"))
    assert annotation.task(task).state == Task.ACCEPTED


def test_closing_cancels_undecided_tasks_and_publishes_each(annotation: Service) -> None:
    annotation.has_campaign()
    accepted, _, leased = annotation.has_tasks("one", "two", "three")
    annotation.answer("ada", accepted, "van")
    closed = annotation.set_campaign(state=Campaign.CLOSED)
    assert (closed.counts.accepted_count, closed.counts.cancelled_count, closed.counts.open_count) == (1, 2, 0)
    told = [event.payload.item for event in annotation.told() if event.type.endswith(".cancelled")]
    assert sorted(told) == [item("three"), item("two")]
    with pytest.raises(FailedPrecondition) as raised:
        annotation.submit("ada", leased, label("van"))
    assert raised.value.reason == "TASK_DECIDED"


@pytest.mark.parametrize("state", [Campaign.PAUSED, Campaign.CLOSED])
def test_a_campaign_whose_dataset_is_deleted_can_be_paused_and_closed(
    annotation: Service, datasets: FakeDatasets, state: "Campaign.State.ValueType"
) -> None:
    annotation.has_campaign()
    (task,) = annotation.has_tasks("one")
    datasets.gone = True
    assert annotation.set_campaign(state=state, display_name="Over").state == state
    assert annotation.task(task).state == (Task.CANCELLED if state == Campaign.CLOSED else Task.OPEN)


def test_the_concepts_of_a_campaign_cannot_change_once_its_dataset_is_deleted(
    annotation: Service, datasets: FakeDatasets
) -> None:
    annotation.has_campaign()
    datasets.gone = True
    with pytest.raises(FailedPrecondition, match=DATASET) as refused:
        annotation.set_campaign(concepts=["van"])
    assert refused.value.reason == "DATASET_DELETED"


def test_a_closed_campaign_accepts_no_tasks_until_it_is_active_again(annotation: Service) -> None:
    annotation.has_campaign()
    annotation.set_campaign(state=Campaign.CLOSED)
    with pytest.raises(FailedPrecondition) as raised:
        annotation.has_tasks("one")
    assert raised.value.reason == "CAMPAIGN_CLOSED"
    annotation.set_campaign(state=Campaign.ACTIVE)
    assert annotation.has_tasks("one")


def test_deleting_a_campaign_deletes_its_tasks_and_publishes_the_undecided_ones(annotation: Service) -> None:
    annotation.has_campaign()
    accepted, _ = annotation.has_tasks("one", "two")
    annotation.answer("ada", accepted, "van")
    annotation.campaigns.DeleteCampaign(DeleteCampaignRequest(name=CAMPAIGN))
    assert [event.type.rpartition(".")[2] for event in annotation.told()] == ["accepted", "cancelled"]
    with pytest.raises(NotFound) as raised:
        annotation.task(accepted)
    assert raised.value.reason == "RESOURCE_NOT_FOUND"


def test_unknown_names_are_not_found(annotation: Service) -> None:
    for call in (
        lambda: annotation.counts(),
        lambda: annotation.set_campaign(display_name="Vans"),
        lambda: annotation.campaigns.DeleteCampaign(DeleteCampaignRequest(name=CAMPAIGN)),
        lambda: annotation.campaigns.GetAgreement(GetAgreementRequest(name=CAMPAIGN)),
        lambda: annotation.lease("ada"),
        lambda: annotation.tasks.BatchCreateTasks(
            BatchCreateTasksRequest(parent=CAMPAIGN, tasks=[Task(item=item("one"))])
        ),
    ):
        with pytest.raises(NotFound):
            call()


def test_agreement_is_computed_over_the_answers_of_the_current_rounds(annotation: Service) -> None:
    annotation.has_campaign(annotators_per_task=2)
    tasks = annotation.has_tasks("one", "two", "three", "four")
    for task, ada, bob in zip(tasks, ["van", "van", "car", "van"], ["van", "van", "car", "car"], strict=True):
        annotation.answer("ada", task, ada)
        annotation.answer("bob", task, bob)
    annotation.lease_to_review("rosa")
    annotation.review("rosa", tasks[3], Review.CORRECT, label("van"))
    found = annotation.campaigns.GetAgreement(GetAgreementRequest(name=CAMPAIGN))
    assert (found.task_count, found.alpha) == (4, pytest.approx(8 / 15))
    assert {one.annotator: one.accuracy for one in found.annotators} == {member("ada"): 1.0, member("bob"): 0.75}
    assert {one.concept: one.object_count for one in found.concepts} == {"car": 3, "van": 5}
    by_annotator = {one.annotator: {part.concept: part.f1 for part in one.concepts} for one in found.annotators}
    assert by_annotator[member("bob")] == {"car": pytest.approx(2 / 3), "van": pytest.approx(0.8)}


def test_a_decision_that_no_annotator_gave_counts_for_agreement(annotation: Service) -> None:
    annotation.has_campaign(annotators_per_task=2)
    (task,) = annotation.has_tasks("one")
    annotation.answer("ada", task, "van")
    annotation.answer("bob", task, "car")
    annotation.lease_to_review("rosa")
    annotation.review("rosa", task, Review.CORRECT)
    found = annotation.campaigns.GetAgreement(GetAgreementRequest(name=CAMPAIGN))
    assert {one.accuracy for one in found.annotators} == {0.0}
    assert {one.f1 for one in found.annotators} == {0.0}


def test_the_answer_time_is_the_median_of_the_measured_times(annotation: Service) -> None:
    annotation.has_campaign(annotators_per_task=2)
    tasks = annotation.has_tasks("one", "two", "three")
    for name, spent in (("ada", [4, None, 10]), ("bob", [30, 40, 3600])):
        annotation.lease(name, count=3)
        for task, seconds in zip(tasks, spent, strict=True):
            annotation.submit(name, task, label("van"), seconds=seconds)
    found = annotation.campaigns.GetAgreement(GetAgreementRequest(name=CAMPAIGN))
    assert found.time_spent.seconds == 30
    assert {one.annotator: one.time_spent.seconds for one in found.annotators} == {member("ada"): 7, member("bob"): 40}


def test_without_measured_times_the_answer_time_is_unset(annotation: Service) -> None:
    annotation.answer("ada", annotation.has_task(), "van")
    found = annotation.campaigns.GetAgreement(GetAgreementRequest(name=CAMPAIGN))
    assert not found.HasField("time_spent")
    assert not found.annotators[0].HasField("time_spent")


def test_an_expired_lease_does_not_prevent_closing(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    annotation.clock.advance(2 * LEASE)
    annotation.set_campaign(state=Campaign.CLOSED)
    assert annotation.task(task).state == Task.CANCELLED

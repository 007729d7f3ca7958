"""What the conductor relies on of annotation: of the real one and of its fake."""

import pytest
from contract import contract
from google.protobuf.field_mask_pb2 import FieldMask
from peers import UNKNOWN_ITEMS, Peer, refused
from vesta_common.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from vesta_common.ids import new_id
from vesta_contracts.annotation.v1 import (
    BatchCreateTasksRequest,
    Campaign,
    CampaignServiceServicer,
    CreateCampaignRequest,
    GetCampaignRequest,
    ListTasksRequest,
    Task,
    TaskServiceServicer,
    UpdateCampaignRequest,
)
from vesta_contracts.common.v1 import Annotation, ImageLabel

pytestmark = pytest.mark.no_events

LONG_AGO, FAR_AWAY = '"2020-01-01T00:00:00+00:00"', '"2100-01-01T00:00:00+00:00"'


def creation(peer: Peer, **fields: object) -> CreateCampaignRequest:
    """Returns the request for a new campaign."""
    campaign = Campaign(**{"dataset": peer.has.dataset, "concepts": peer.has.concepts[:2], **fields})
    return CreateCampaignRequest(
        parent=peer.has.project, campaign_id=f"c{new_id()}", campaign=campaign, request_id=new_id()
    )


def a_campaign(peer: Peer, **fields: object) -> Campaign:
    return peer.campaigns.CreateCampaign(creation(peer, **fields))


def batch(peer: Peer, campaign: Campaign, **fields: object) -> BatchCreateTasksRequest:
    """Returns the request for a task about each unlabelled item."""
    items = [item for item in peer.has.items if item not in peer.has.labelled]
    return BatchCreateTasksRequest(
        parent=campaign.name, tasks=[Task(item=item, **fields) for item in items], request_id=new_id()
    )


def listed(peer: Peer, campaign: Campaign, filter_text: str, page_size: int = 0) -> list[str]:
    """Returns the names of all pages of ListTasks."""
    request = ListTasksRequest(parent=campaign.name, filter=filter_text, page_size=page_size)
    found: list[str] = []
    while True:
        page = peer.tasks.ListTasks(request)
        assert not page_size or len(page.tasks) <= page_size
        found += [task.name for task in page.tasks]
        request.page_token = page.next_page_token
        if not request.page_token:
            return found


@contract(CampaignServiceServicer.CreateCampaign, CampaignServiceServicer.GetCampaign)
def test_a_new_campaign_is_active_and_its_request_id_returns_the_first_response(peer: Peer) -> None:
    request = creation(peer, instructions="Look closely.", review_share=0.5)
    made = peer.campaigns.CreateCampaign(request)
    assert made.name == f"{peer.has.project}/campaigns/{request.campaign_id}"
    assert (made.state, made.dataset) == (Campaign.ACTIVE, peer.has.dataset)
    assert (made.instructions, made.review_share) == ("Look closely.", 0.5)
    assert list(made.concepts) == list(request.campaign.concepts)
    assert peer.campaigns.CreateCampaign(request) == made
    found = peer.campaigns.GetCampaign(GetCampaignRequest(name=made.name))
    assert (found.name, found.etag, found.create_time) == (made.name, made.etag, made.create_time)


@contract(CampaignServiceServicer.CreateCampaign)
def test_create_campaign_rejects_a_request_id_of_another_request(peer: Peer) -> None:
    request = creation(peer)
    peer.campaigns.CreateCampaign(request)
    request.campaign_id = f"c{new_id()}"
    with refused(InvalidArgument, "REQUEST_ID_REUSED", request_id=request.request_id):
        peer.campaigns.CreateCampaign(request)


@contract(CampaignServiceServicer.CreateCampaign)
def test_create_campaign_refuses_a_name_that_is_taken(peer: Peer) -> None:
    request = creation(peer)
    made = peer.campaigns.CreateCampaign(request)
    request.request_id = new_id()
    with refused(AlreadyExists, "RESOURCE_EXISTS", name=made.name):
        peer.campaigns.CreateCampaign(request)


@contract(CampaignServiceServicer.CreateCampaign)
def test_create_campaign_for_an_unknown_dataset_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.dataset}-unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        a_campaign(peer, dataset=name)


@contract(CampaignServiceServicer.GetCampaign)
def test_get_campaign_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.project}/campaigns/unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.campaigns.GetCampaign(GetCampaignRequest(name=name))


@contract(
    CampaignServiceServicer.CreateCampaign, CampaignServiceServicer.GetCampaign, TaskServiceServicer.BatchCreateTasks
)
def test_a_campaign_counts_its_tasks(peer: Peer) -> None:
    campaign = a_campaign(peer)
    tasks = peer.tasks.BatchCreateTasks(batch(peer, campaign)).tasks
    counts = peer.campaigns.GetCampaign(GetCampaignRequest(name=campaign.name)).counts
    assert (counts.open_count, counts.in_review_count, counts.accepted_count) == (len(tasks), 0, 0)


@contract(CampaignServiceServicer.CreateCampaign, CampaignServiceServicer.UpdateCampaign)
def test_update_campaign_changes_the_fields_of_the_mask_alone(peer: Peer) -> None:
    made = a_campaign(peer, instructions="before", review_share=0.5)
    wanted = Campaign(name=made.name, instructions="after", concepts=peer.has.concepts[:1])
    request = UpdateCampaignRequest(campaign=wanted, update_mask=FieldMask(paths=["concepts", "review_share"]))
    updated = peer.campaigns.UpdateCampaign(request)
    assert (updated.instructions, updated.review_share) == ("before", 0)
    assert list(updated.concepts) == [peer.has.concepts[0]]
    assert updated.state == Campaign.ACTIVE
    assert updated.etag != made.etag


@contract(CampaignServiceServicer.CreateCampaign, CampaignServiceServicer.UpdateCampaign)
def test_update_campaign_rejects_a_stale_etag_and_fields_that_cannot_change(peer: Peer) -> None:
    made = a_campaign(peer)
    stale = Campaign(name=made.name, instructions="changed", etag="stale")
    with refused(Aborted, "ETAG_STALE", name=made.name):
        peer.campaigns.UpdateCampaign(
            UpdateCampaignRequest(campaign=stale, update_mask=FieldMask(paths=["instructions"]))
        )
    with refused(InvalidArgument, "FIELD_IMMUTABLE"):
        peer.campaigns.UpdateCampaign(
            UpdateCampaignRequest(campaign=Campaign(name=made.name), update_mask=FieldMask(paths=["dataset"]))
        )


@contract(CampaignServiceServicer.UpdateCampaign)
def test_update_campaign_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.project}/campaigns/unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.campaigns.UpdateCampaign(UpdateCampaignRequest(campaign=Campaign(name=name)))


@contract(CampaignServiceServicer.CreateCampaign, TaskServiceServicer.BatchCreateTasks)
def test_new_tasks_are_open_in_the_order_of_the_request_and_its_request_id_returns_them_again(peer: Peer) -> None:
    guess = Annotation(concept=peer.has.concepts[0], image_label=ImageLabel(), score=0.5)
    request = batch(
        peer,
        a_campaign(peer),
        priority=2.5,
        selection_reason="It is uncertain.",
        pre_annotations=[guess],
        model_version=peer.has.model_version,
    )
    made = peer.tasks.BatchCreateTasks(request)
    assert [task.item for task in made.tasks] == [task.item for task in request.tasks]
    assert len({task.name for task in made.tasks}) == len(made.tasks)
    for task in made.tasks:
        assert task.name.startswith(f"{request.parent}/tasks/")
        assert (task.state, task.priority, task.selection_reason) == (Task.OPEN, 2.5, "It is uncertain.")
        assert (list(task.pre_annotations), task.model_version) == ([guess], peer.has.model_version)
        assert task.HasField("create_time")
        assert task.HasField("update_time")
    assert peer.tasks.BatchCreateTasks(request) == made

    request.tasks[0].priority = 3
    with refused(InvalidArgument, "REQUEST_ID_REUSED", request_id=request.request_id):
        peer.tasks.BatchCreateTasks(request)


@contract(CampaignServiceServicer.CreateCampaign, TaskServiceServicer.BatchCreateTasks)
def test_batch_create_tasks_finds_no_unknown_campaign_or_item(peer: Peer) -> None:
    campaign = a_campaign(peer)
    request = batch(peer, campaign)
    request.parent = f"{peer.has.project}/campaigns/unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=request.parent):
        peer.tasks.BatchCreateTasks(request)
    request = batch(peer, campaign)
    request.tasks[1].item = f"{peer.has.dataset}/items/{UNKNOWN_ITEMS[0]}"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=request.tasks[1].item):
        peer.tasks.BatchCreateTasks(request)


@contract(
    CampaignServiceServicer.CreateCampaign,
    CampaignServiceServicer.UpdateCampaign,
    TaskServiceServicer.BatchCreateTasks,
    TaskServiceServicer.ListTasks,
)
def test_a_closed_campaign_has_no_undecided_tasks_and_takes_no_more(peer: Peer) -> None:
    campaign = a_campaign(peer)
    peer.tasks.BatchCreateTasks(batch(peer, campaign))
    closed = Campaign(name=campaign.name, state=Campaign.CLOSED)
    peer.campaigns.UpdateCampaign(UpdateCampaignRequest(campaign=closed, update_mask=FieldMask(paths=["state"])))
    assert not listed(peer, campaign, "state = OPEN OR state = IN_REVIEW")
    with pytest.raises(FailedPrecondition) as caught:
        peer.tasks.BatchCreateTasks(batch(peer, campaign))
    assert caught.value.reason == "CAMPAIGN_CLOSED"


@contract(CampaignServiceServicer.CreateCampaign, TaskServiceServicer.BatchCreateTasks, TaskServiceServicer.ListTasks)
@pytest.mark.parametrize("page_size", [0, 1, 2, 1000])
def test_list_tasks_returns_each_task_of_the_campaign_once_in_order_of_creation(peer: Peer, page_size: int) -> None:
    campaign = a_campaign(peer)
    made = [task.name for task in peer.tasks.BatchCreateTasks(batch(peer, campaign)).tasks]
    assert listed(peer, campaign, "state = OPEN OR state = IN_REVIEW", page_size) == made
    assert listed(peer, a_campaign(peer), "state = OPEN OR state = IN_REVIEW", page_size) == []


@contract(CampaignServiceServicer.CreateCampaign, TaskServiceServicer.BatchCreateTasks, TaskServiceServicer.ListTasks)
def test_list_tasks_filters_by_state_time_and_control_arm(peer: Peer) -> None:
    campaign = a_campaign(peer)
    request = batch(peer, campaign)
    request.tasks[1].control = True
    made = [task.name for task in peer.tasks.BatchCreateTasks(request).tasks]
    for filter_text, found in (
        (f"state = OPEN AND update_time >= {LONG_AGO}", made),
        (f"state = OPEN AND update_time >= {FAR_AWAY}", []),
        (f"state = ACCEPTED AND update_time >= {LONG_AGO}", []),
        (f"state = OPEN AND control = true AND create_time >= {LONG_AGO}", [made[1]]),
        (f"state = OPEN AND control = true AND create_time >= {FAR_AWAY}", []),
    ):
        assert listed(peer, campaign, filter_text) == found, filter_text


@contract(TaskServiceServicer.ListTasks)
def test_list_tasks_of_an_unknown_campaign_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.project}/campaigns/unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.tasks.ListTasks(ListTasksRequest(parent=name, filter="state = OPEN OR state = IN_REVIEW"))

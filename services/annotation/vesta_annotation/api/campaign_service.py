"""The CampaignService of the gRPC API."""

import grpc
from google.protobuf import empty_pb2
from vesta_common.ids import new_id
from vesta_common.media.task_types import check_task_type
from vesta_common.messages import copy_of
from vesta_common.resources.methods import find_answer, revise, run_once
from vesta_common.resources.page_keys import by_name
from vesta_common.resources.pages import read_page
from vesta_common.storage.postgres import Connection
from vesta_contracts.annotation.v1 import (
    Agreement,
    Campaign,
    CampaignServiceServicer,
    CreateCampaignRequest,
    DeleteCampaignRequest,
    GetAgreementRequest,
    GetCampaignRequest,
    GetGuidelinesRequest,
    Guidelines,
    ListCampaignsRequest,
    ListCampaignsResponse,
    UpdateCampaignRequest,
)

from vesta_annotation.agreement import measure_agreement
from vesta_annotation.api.annotation_rules import RulesSource
from vesta_annotation.campaign_rules import asked_concepts, guidelines
from vesta_annotation.store import Store
from vesta_annotation.task_types import task_type_of

_MUTABLE = ("display_name", "instructions", "concepts", "review_share", "lease_duration", "state")


class CampaignService(CampaignServiceServicer):
    """Implements CampaignService."""

    def __init__(self, store: Store, rules: RulesSource) -> None:
        self._store = store
        self._rules = rules

    def CreateCampaign(self, request: CreateCampaignRequest, context: grpc.ServicerContext) -> Campaign:
        """Creates a campaign for the given concepts of the dataset's taxonomy, or for all concepts by default."""
        if answer := find_answer(self._store.postgres, request, Campaign):
            return answer
        campaign = _with_defaults(request.campaign)
        dataset, taxonomy = self._rules.look_up(campaign.dataset)
        campaign.concepts[:] = asked_concepts(campaign.concepts, taxonomy)
        check_task_type(campaign.task_type, dataset, "campaign.task_type", "the campaign")
        campaign.task_type = dataset.task_type
        task_type_of(campaign)  # must have a module
        campaign.name = f"{request.parent}/campaigns/{request.campaign_id or new_id()}"

        def create(connection: Connection) -> Campaign:
            return self._store.insert_campaign(connection, campaign)

        return run_once(self._store.postgres, request, Campaign, create)

    def GetCampaign(self, request: GetCampaignRequest, context: grpc.ServicerContext) -> Campaign:
        with self._store.transaction() as connection:
            campaign = self._store.get_campaign(connection, request.name)
            self._store.count(connection, [campaign])
        return campaign

    def ListCampaigns(self, request: ListCampaignsRequest, context: grpc.ServicerContext) -> ListCampaignsResponse:
        page = read_page(request)
        with self._store.transaction() as connection:
            rows = self._store.list_campaigns(connection, request.parent, page.after, page.limit)
            campaigns, token = page.cut(rows, by_name)
            self._store.count(connection, campaigns)
        return ListCampaignsResponse(campaigns=campaigns, next_page_token=token)

    def UpdateCampaign(self, request: UpdateCampaignRequest, context: grpc.ServicerContext) -> Campaign:
        """Updates a campaign. Closing it cancels its undecided tasks. Only a change of concepts reads the dataset."""
        with self._store.transaction() as connection:
            current = self._store.get_campaign(connection, request.campaign.name)
        revised = revise(current, request.campaign, request.update_mask, _MUTABLE)
        taxonomy = self._rules.describe(current)[1] if revised.concepts != current.concepts else None
        with self._store.transaction() as connection:
            current = self._store.get_campaign(connection, request.campaign.name, lock=True)
            revised = revise(current, request.campaign, request.update_mask, _MUTABLE)
            if taxonomy is not None:
                revised.concepts[:] = asked_concepts(revised.concepts, taxonomy)
            updated = self._store.update_campaign(connection, _with_defaults(revised))
            if updated.state == Campaign.CLOSED:
                self._store.cancel_tasks(connection, updated.name)
            self._store.count(connection, [updated])
        return updated

    def DeleteCampaign(self, request: DeleteCampaignRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Deletes a campaign with its tasks. Accepted labels stay in the dataset."""
        with self._store.transaction() as connection:
            self._store.get_campaign(connection, request.name, lock=True)
            self._store.delete_campaign(connection, request.name)
        return empty_pb2.Empty()

    def GetAgreement(self, request: GetAgreementRequest, context: grpc.ServicerContext) -> Agreement:
        with self._store.transaction() as connection:
            campaign = self._store.get_campaign(connection, request.name)
            answers = self._store.list_answers(connection, campaign)
        return measure_agreement(answers, task_type_of(campaign))

    def GetGuidelines(self, request: GetGuidelinesRequest, context: grpc.ServicerContext) -> Guidelines:
        """Returns the instructions, and the concepts as the taxonomy describes them now."""
        with self._store.transaction() as connection:
            campaign = self._store.get_campaign(connection, request.name)
        _, taxonomy = self._rules.describe(campaign)
        return guidelines(campaign, taxonomy)


def _with_defaults(campaign: Campaign) -> Campaign:
    """Returns the campaign with defaults applied: active, one answer per task."""
    return copy_of(
        campaign, state=campaign.state or Campaign.ACTIVE, annotators_per_task=campaign.annotators_per_task or 1
    )

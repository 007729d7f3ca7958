"""gRPC: campaigns."""

import grpc
import psycopg
from google.protobuf import empty_pb2
from vesta_common.errors import AlreadyExists
from vesta_common.etags import check_etag
from vesta_common.idempotency import once
from vesta_common.ids import new_id
from vesta_common.masks import apply_update
from vesta_common.pages import read_page
from vesta_contracts.annotation.v1 import (
    Agreement,
    Campaign,
    CampaignServiceServicer,
    CreateCampaignRequest,
    DeleteCampaignRequest,
    GetAgreementRequest,
    GetCampaignRequest,
    ListCampaignsRequest,
    ListCampaignsResponse,
    UpdateCampaignRequest,
)
from vesta_contracts.datasets.v1 import DatasetServiceStub, GetDatasetRequest

from vesta_annotation.agreement import measure_agreement
from vesta_annotation.store import Store

_MUTABLE = ("display_name", "instructions", "concepts", "review_share", "lease_duration", "state")


class CampaignService(CampaignServiceServicer):
    """Keeps Campaigns."""

    def __init__(self, store: Store, datasets: DatasetServiceStub) -> None:
        self._store = store
        self._datasets = datasets

    def CreateCampaign(self, request: CreateCampaignRequest, context: grpc.ServicerContext) -> Campaign:
        """Keeps a new campaign on a dataset that is there."""
        self._datasets.GetDataset(GetDatasetRequest(name=request.campaign.dataset))
        name = f"{request.parent}/campaigns/{request.campaign_id or new_id()}"

        def create() -> Campaign:
            campaign = Campaign()
            campaign.CopyFrom(request.campaign)
            campaign.name = name
            campaign.state = campaign.state or Campaign.ACTIVE
            campaign.replicas = campaign.replicas or 1
            self._store.insert_campaign(connection, campaign)
            return self._store.get_campaign(connection, name)

        try:
            with self._store.postgres.transaction() as connection:
                return once(connection, request, Campaign, create)
        except psycopg.errors.UniqueViolation as error:
            raise AlreadyExists(
                f"{name} is there already", reason="RESOURCE_EXISTS", metadata={"name": name}
            ) from error

    def GetCampaign(self, request: GetCampaignRequest, context: grpc.ServicerContext) -> Campaign:
        """One campaign with its counts."""
        with self._store.postgres.transaction() as connection:
            return self._store.with_counts(connection, self._store.get_campaign(connection, request.name))

    def ListCampaigns(self, request: ListCampaignsRequest, context: grpc.ServicerContext) -> ListCampaignsResponse:
        """A project's campaigns by name."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            after = page.cursor[0] if page.cursor else ""
            found = self._store.list_campaigns(connection, request.parent, after, page.limit)
        kept, token = page.cut(found, lambda campaign: (campaign.name,))
        return ListCampaignsResponse(campaigns=kept, next_page_token=token)

    def UpdateCampaign(self, request: UpdateCampaignRequest, context: grpc.ServicerContext) -> Campaign:
        """Changes a campaign; closing it cancels what is undecided."""
        with self._store.postgres.transaction() as connection:
            current = self._store.get_campaign(connection, request.campaign.name, lock=True)
            check_etag(request.campaign.etag, current)
            updated = apply_update(current, request.campaign, request.update_mask, _MUTABLE)
            self._store.update_campaign(connection, updated)
            if updated.state == Campaign.CLOSED:
                self._store.cancel_tasks(connection, updated.name)
            return self._store.with_counts(connection, self._store.get_campaign(connection, updated.name))

    def DeleteCampaign(self, request: DeleteCampaignRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Removes a campaign with its tasks; what was accepted stays in the dataset."""
        with self._store.postgres.transaction() as connection:
            self._store.get_campaign(connection, request.name, lock=True)
            self._store.delete_campaign(connection, request.name)
        return empty_pb2.Empty()

    def GetAgreement(self, request: GetAgreementRequest, context: grpc.ServicerContext) -> Agreement:
        """How far the experts agree."""
        with self._store.postgres.transaction() as connection:
            self._store.get_campaign(connection, request.name)
            answers = self._store.list_answers(connection, request.name)
        return measure_agreement(answers)

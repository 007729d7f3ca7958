"""What the tests of this service share: a datasets service of their own, and the service as its callers see it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from vesta_common import trace
from vesta_common.clock import ManualClock
from vesta_common.errors import NotFound
from vesta_common.postgres import Postgres
from vesta_contracts.annotation.v1 import (
    BatchCreateTasksRequest,
    Campaign,
    CampaignServiceStub,
    CreateCampaignRequest,
    CreateReviewRequest,
    CreateSubmissionRequest,
    GetCampaignRequest,
    GetTaskRequest,
    LeasePurpose,
    LeaseTasksRequest,
    Review,
    ReviewServiceStub,
    Submission,
    SubmissionServiceStub,
    Task,
    TaskServiceStub,
)
from vesta_contracts.common.v1 import Annotation as Statement
from vesta_contracts.common.v1 import ImageLabel
from vesta_contracts.datasets.v1 import Dataset, DatasetServiceServicer, GetDatasetRequest

PROJECT = "projects/acme"
DATASET = f"{PROJECT}/datasets/vans"
ADA, BEN, ROSA = (f"{PROJECT}/members/{name}" for name in ("ada", "ben", "rosa"))


class OneDataset(DatasetServiceServicer):
    """Knows one dataset."""

    def GetDataset(self, request: GetDatasetRequest, context: grpc.ServicerContext) -> Dataset:
        if request.name != DATASET:
            raise NotFound(f"there is no {request.name}", reason="RESOURCE_NOT_FOUND")
        return Dataset(name=DATASET)


def says(*concepts: str) -> list[Statement]:
    """An answer: these concepts are true of the whole image."""
    return [Statement(concept=concept, image_label=ImageLabel()) for concept in concepts]


class Annotation:
    """The service as its callers see it."""

    def __init__(self, postgres: Postgres, clock: ManualClock, channel: grpc.Channel) -> None:
        self.postgres = postgres
        self.clock = clock
        self.campaigns = CampaignServiceStub(channel)
        self.tasks = TaskServiceStub(channel)
        self.submissions = SubmissionServiceStub(channel)
        self.reviews = ReviewServiceStub(channel)

    @contextmanager
    def as_member(self, member: str, role: str = "annotator") -> Iterator[None]:
        """Calls within come from this member."""
        with trace.calling(member, role):
            yield

    def a_campaign(self, campaign_id: str = "c", **fields: Any) -> Campaign:
        """A campaign that asks for vans and cars."""
        campaign = Campaign(**{"dataset": DATASET, "concepts": ["van", "car"], **fields})
        return self.campaigns.CreateCampaign(
            CreateCampaignRequest(parent=PROJECT, campaign_id=campaign_id, campaign=campaign)
        )

    def some_tasks(self, campaign: Campaign, count: int = 1, request_id: str = "", **fields: Any) -> list[Task]:
        """Tasks on the items i0, i1 …"""
        tasks = [Task(item=f"{DATASET}/items/i{index}", **fields) for index in range(count)]
        request = BatchCreateTasksRequest(parent=campaign.name, tasks=tasks, request_id=request_id)
        return list(self.tasks.BatchCreateTasks(request).tasks)

    def lease(self, campaign: Campaign, member: str, count: int = 10, *, review: bool = False) -> list[Task]:
        """What a member is handed."""
        purpose = LeasePurpose.LEASE_PURPOSE_REVIEW if review else LeasePurpose.LEASE_PURPOSE_ANNOTATE
        with self.as_member(member, "reviewer" if review else "annotator"):
            return list(
                self.tasks.LeaseTasks(LeaseTasksRequest(parent=campaign.name, purpose=purpose, count=count)).tasks
            )

    def submit(self, task: Task, member: str, *concepts: str, request_id: str = "") -> Submission:
        """A member's answer."""
        request = CreateSubmissionRequest(
            parent=task.name, submission=Submission(annotations=says(*concepts)), request_id=request_id
        )
        with self.as_member(member):
            return self.submissions.CreateSubmission(request)

    def review(
        self,
        task: Task,
        member: str,
        decision: "Review.Decision.ValueType",
        concepts: Sequence[str] = (),
        comment: str = "",
    ) -> Review:
        """A reviewer's decision."""
        review = Review(decision=decision, annotations=says(*concepts), comment=comment)
        with self.as_member(member, "reviewer"):
            return self.reviews.CreateReview(CreateReviewRequest(parent=task.name, review=review))

    def get(self, task: Task) -> Task:
        """The task as it is now."""
        return self.tasks.GetTask(GetTaskRequest(name=task.name))

    def counts(self, campaign: Campaign) -> Any:
        """The campaign's counts."""
        return self.campaigns.GetCampaign(GetCampaignRequest(name=campaign.name)).counts

    def told(self) -> list[str]:
        """The types of the events that are waiting to be published, in order."""
        with self.postgres.transaction() as connection:
            rows = connection.execute("SELECT headers FROM outbox ORDER BY id").fetchall()
        return [dict(row["headers"])["ce_type"].rpartition(".")[2] for row in rows]

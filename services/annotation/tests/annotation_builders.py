"""Builders for the tests: campaigns, tasks and answers with defaults, and a client of the service."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from vesta_common import trace
from vesta_common.clock import Clock
from vesta_common.events.cloudevents import Event, decode
from vesta_common.resources.methods import missing
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Postgres
from vesta_contracts.annotation.v1 import (
    BatchCreateTasksRequest,
    Campaign,
    CampaignCounts,
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
    UpdateCampaignRequest,
)
from vesta_contracts.common.v1 import Annotation, ImageLabel, Media, PixelBox, TaskType
from vesta_contracts.datasets.v1 import (
    BatchGetItemsRequest,
    BatchGetItemsResponse,
    Concept,
    Dataset,
    DatasetServiceServicer,
    GetDatasetRequest,
    GetItemRequest,
    GetTaxonomyRequest,
    Item,
    ItemServiceServicer,
    Split,
    Taxonomy,
    TaxonomyServiceServicer,
)

PROJECT = "projects/acme"
DATASET = f"{PROJECT}/datasets/vans"
CAMPAIGN = f"{PROJECT}/campaigns/vans"
TAXONOMY = f"{PROJECT}/taxonomies/vehicles"
CONCEPTS = ("van", "car", "bus", "tram")
LEASE = timedelta(minutes=10)


def member(name: str) -> str:
    """Returns a member's name, such as `projects/acme/members/ada`."""
    return f"{PROJECT}/members/{name}"


def item(name: str) -> str:
    """Returns an item's name, such as `projects/acme/datasets/vans/items/one`."""
    return f"{DATASET}/items/{name}"


def label(concept: str, **fields: Any) -> Annotation:
    """Returns a label of the whole image."""
    return Annotation(concept=concept, image_label=ImageLabel(), **fields)


def a_box(concept: str = "van", **fields: Any) -> Annotation:
    """Returns a box with a concept."""
    return Annotation(concept=concept, box=PixelBox(x_min_px=1, y_min_px=2, x_max_px=30.5, y_max_px=40), **fields)


def an_answer(annotator: str, *concepts: str) -> Submission:
    """Returns an answer with these concepts."""
    return Submission(annotator=annotator, annotations=[label(concept) for concept in concepts])


class FakeDatasets(DatasetServiceServicer):
    """A fake DatasetService with one dataset, which can be deleted."""

    gone = False
    task_type = TaskType.TASK_TYPE_CLASSIFICATION

    def GetDataset(self, request: GetDatasetRequest, context: grpc.ServicerContext) -> Dataset:
        if self.gone or request.name != DATASET:
            raise missing(request.name)
        return Dataset(name=request.name, taxonomy=TAXONOMY, task_type=self.task_type)


class FakeTaxonomies(TaxonomyServiceServicer):
    """A fake TaxonomyService; "tram" is retired, and the concepts in `gone` are removed."""

    def __init__(self) -> None:
        self.gone: set[str] = set()

    def GetTaxonomy(self, request: GetTaxonomyRequest, context: grpc.ServicerContext) -> Taxonomy:
        if request.name != TAXONOMY:
            raise missing(request.name)
        concepts = [
            Concept(id=name, retired=name == "tram", description=f"What a {name} is.", keypoints=["door"])
            for name in CONCEPTS
            if name not in self.gone
        ]
        return Taxonomy(name=request.name, concepts=concepts)


class FakeItems(ItemServiceServicer):
    """A fake ItemService with every item of one dataset except those in `gone`, all of one size; those in `test` are in the test split."""

    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.test: set[str] = set()

    def GetItem(self, request: GetItemRequest, context: grpc.ServicerContext) -> Item:
        return self._item(request.name)

    def BatchGetItems(self, request: BatchGetItemsRequest, context: grpc.ServicerContext) -> BatchGetItemsResponse:
        for name in request.names:
            if parent_of(name) != request.parent:
                raise missing(name)
        return BatchGetItemsResponse(items=[self._item(name) for name in request.names])

    def _item(self, name: str) -> Item:
        if name in self.gone or parent_of(name) != DATASET:
            raise missing(name)
        split = Split.SPLIT_TEST if name in self.test else Split.SPLIT_TRAIN
        return Item(name=name, split=split, media=Media(width_px=64, height_px=48, mime_type="image/jpeg"))


class Service:
    """A client of the service. The first argument is the calling member, as in `lease("ada")`; without it there is no member."""

    def __init__(self, address: str, door: grpc.Channel, clock: Clock, postgres: Postgres) -> None:
        self.address = address
        self.campaigns = CampaignServiceStub(door)
        self.tasks = TaskServiceStub(door)
        self.submissions = SubmissionServiceStub(door)
        self.reviews = ReviewServiceStub(door)
        self.clock = clock
        self.postgres = postgres

    def has_campaign(self, campaign_id: str = "vans", *, request_id: str = "", **fields: Any) -> Campaign:
        """Creates a campaign."""
        campaign = Campaign(**{"dataset": DATASET, **fields})
        request = CreateCampaignRequest(
            parent=PROJECT, campaign_id=campaign_id, campaign=campaign, request_id=request_id
        )
        return self.campaigns.CreateCampaign(request)

    def has_tasks(self, *items: str, request_id: str = "", **fields: Any) -> list[Task]:
        """Creates tasks of the campaign, one per item."""
        tasks = [Task(item=item(name), **fields) for name in items]
        request = BatchCreateTasksRequest(parent=CAMPAIGN, tasks=tasks, request_id=request_id)
        return list(self.tasks.BatchCreateTasks(request).tasks)

    def has_task(self, **fields: Any) -> Task:
        """Creates a campaign with one task, without a lease."""
        self.has_campaign(**fields)
        return self.has_tasks("one")[0]

    def lease(self, name: str, count: int = 1, role: str = "annotator") -> list[Task]:
        """Leases tasks for annotation."""
        return self._lease(name, role, LeasePurpose.LEASE_PURPOSE_ANNOTATE, count)

    def lease_to_review(self, name: str, count: int = 1, role: str = "reviewer") -> list[Task]:
        """Leases tasks for review."""
        return self._lease(name, role, LeasePurpose.LEASE_PURPOSE_REVIEW, count)

    def _lease(self, name: str, role: str, purpose: "LeasePurpose.ValueType", count: int) -> list[Task]:
        with trace.calling(member(name), role):
            request = LeaseTasksRequest(parent=CAMPAIGN, purpose=purpose, count=count)
            return list(self.tasks.LeaseTasks(request).tasks)

    def submit(
        self, name: str, task: Task, *annotations: Annotation, request_id: str = "", seconds: int | None = None
    ) -> Submission:
        """Submits an answer.

        Args:
            seconds: how long they looked.
        """
        spent = None if seconds is None else Duration(seconds=seconds)
        submission = Submission(annotations=annotations, time_spent=spent)
        with trace.calling(member(name)):
            return self.submissions.CreateSubmission(
                CreateSubmissionRequest(parent=task.name, submission=submission, request_id=request_id)
            )

    def answer(self, name: str, task: Task, *concepts: str) -> Submission:
        """Leases a task and submits an answer."""
        assert task.name in {leased.name for leased in self.lease(name, count=100)}
        return self.submit(name, task, *(label(concept) for concept in concepts))

    def review(
        self,
        name: str,
        task: Task,
        decision: "Review.Decision.ValueType",
        *annotations: Annotation,
        comment: str = "",
        request_id: str = "",
    ) -> Review:
        """Submits a review."""
        review = Review(decision=decision, annotations=annotations, comment=comment)
        with trace.calling(member(name)):
            return self.reviews.CreateReview(
                CreateReviewRequest(parent=task.name, review=review, request_id=request_id)
            )

    def is_disputed(self, *, annotators_per_task: int = 2) -> Task:
        """Creates a task in review: ada answers van, bob car, and so on."""
        task = self.has_task(annotators_per_task=annotators_per_task)
        for name, concept in (("ada", "van"), ("bob", "car"), ("cyd", "bus"))[:annotators_per_task]:
            self.answer(name, task, concept)
        return self.task(task)

    def set_campaign(self, **fields: Any) -> Campaign:
        """Updates the campaign."""
        return self.campaigns.UpdateCampaign(UpdateCampaignRequest(campaign=Campaign(name=CAMPAIGN, **fields)))

    def task(self, task: Task) -> Task:
        """Returns the task."""
        return self.tasks.GetTask(GetTaskRequest(name=task.name))

    def counts(self) -> CampaignCounts:
        """Returns the campaign's counts."""
        return self.campaigns.GetCampaign(GetCampaignRequest(name=CAMPAIGN)).counts

    def told(self) -> list[Event]:
        """Returns the events in the outbox, in order."""
        with self.postgres.transaction() as connection:
            rows = connection.execute("SELECT headers, value FROM outbox ORDER BY id").fetchall()
        return [decode([(key, text.encode()) for key, text in row["headers"]], row["value"]) for row in rows]


def names(tasks: Sequence[Task]) -> list[str]:
    """Returns the holders of the leases, in order."""
    return [task.name for task in tasks]

"""Annotations keep the same rules at every door: an answer, a review, a direct annotation, an import, and an event."""

import hashlib
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from vesta_annotation.api import CampaignService, ReviewService, SubmissionService, TaskService
from vesta_annotation.api.annotation_rules import RulesSource
from vesta_annotation.settings import Settings as AnnotationSettings
from vesta_annotation.store import Store as AnnotationStore
from vesta_common import trace
from vesta_common.clock import SystemClock
from vesta_common.errors import InvalidArgument
from vesta_common.events.cloudevents import new_event
from vesta_common.media.large_annotations import LargeAnnotations
from vesta_common.rpc.client import open_channel
from vesta_common.rpc.server import Server
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.annotation.v1 import (
    BatchCreateTasksRequest,
    Campaign,
    CampaignServiceStub,
    CancelTaskRequest,
    CreateCampaignRequest,
    CreateReviewRequest,
    CreateSubmissionRequest,
    LeasePurpose,
    LeaseTasksRequest,
    Review,
    ReviewServiceStub,
    Submission,
    SubmissionServiceStub,
    Task,
    TaskAccepted,
    TaskServiceStub,
)
from vesta_contracts.common.v1 import (
    Annotation,
    ImageLabel,
    Keyframe,
    Keypoint,
    Keypoints,
    Mask,
    Media,
    PixelBox,
    PixelPoint,
    Polygon,
    Ring,
    RotatedBox,
    Track,
    Visibility,
)
from vesta_contracts.datasets.v1 import (
    AnnotationList,
    BatchAnnotateItemsRequest,
    BatchCreateItemsRequest,
    Concept,
    CreateDatasetRequest,
    CreateTaxonomyRequest,
    Dataset,
    DatasetServiceStub,
    ItemAnnotations,
    ItemServiceStub,
    NewItem,
    Taxonomy,
    TaxonomyServiceStub,
)
from vesta_datasets.api.dataset_service import DatasetService
from vesta_datasets.api.item_service import ItemService
from vesta_datasets.api.taxonomy_service import TaxonomyService
from vesta_datasets.ingest.event_handlers import EventHandlers
from vesta_datasets.operations.worker import Operations
from vesta_datasets.settings import Settings as DatasetsSettings
from vesta_datasets.store import Store as DatasetsStore
from vesta_local.testing import identity_of

PROJECT = "projects/acme"
WIDTH_PX, HEIGHT_PX = 64, 48
EXAMPLES = 60
VAN = Annotation(concept="van", image_label=ImageLabel())

coordinates = st.one_of(st.floats(-2, 70), st.integers(0, 64).map(float), st.sampled_from([math.nan, math.inf, 1e300]))
points = st.builds(PixelPoint, x_px=coordinates, y_px=coordinates)
rings = st.builds(Ring, points=st.lists(points, min_size=2, max_size=5))
boxes = st.builds(PixelBox, x_min_px=coordinates, y_min_px=coordinates, x_max_px=coordinates, y_max_px=coordinates)
masks = st.builds(
    Mask,
    width_px=st.sampled_from([WIDTH_PX, HEIGHT_PX]),
    height_px=st.sampled_from([HEIGHT_PX, WIDTH_PX]),
    runs_px=st.sampled_from([[WIDTH_PX * HEIGHT_PX], [0, WIDTH_PX * HEIGHT_PX], [7, 7], []]),
)
keypoints = st.builds(
    Keypoints,
    points=st.lists(
        st.builds(
            Keypoint,
            label=st.sampled_from(["door", "wheel", "elbow", ""]),
            point=st.none() | points,
            visibility=st.sampled_from([Visibility.VISIBILITY_VISIBLE, Visibility.VISIBILITY_ABSENT]),
        ),
        max_size=3,
    ),
)
shapes: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({"image_label": ImageLabel()}),
    st.just({}),
    boxes.map(lambda box: {"box": box}),
    st.builds(
        RotatedBox,
        x_center_px=coordinates,
        y_center_px=coordinates,
        width_px=coordinates,
        height_px=coordinates,
        angle_deg=st.floats(-200, 200),
    ).map(lambda box: {"rotated_box": box}),
    st.builds(Polygon, outline=rings, holes=st.lists(rings, max_size=1)).map(lambda polygon: {"polygon": polygon}),
    masks.map(lambda mask: {"mask": mask}),
    keypoints.map(lambda found: {"keypoints": found}),
    boxes.map(lambda box: {"track": Track(track_id="1", keyframes=[Keyframe(box=box)])}),
)
annotations = st.builds(
    lambda concept, shape, score: Annotation(concept=concept, score=score, **shape),
    st.sampled_from(["van", "car", "tram", "airship", ""]),
    shapes,
    st.none() | st.floats(-0.5, 1.5),
)


class Doors:
    """The datasets and the annotation service, and every way in for annotations of an item of its own."""

    def __init__(self, store: DatasetsStore, datasets: Any, annotation: Any) -> None:
        self._store = store
        self._seeds = count()
        self._items = ItemServiceStub(datasets)
        self._tasks, self._submissions = TaskServiceStub(annotation), SubmissionServiceStub(annotation)
        self._reviews = ReviewServiceStub(annotation)
        concepts = [Concept(id="van", keypoints=["door", "wheel"]), Concept(id="car"), Concept(id="tram", retired=True)]
        taxonomy = TaxonomyServiceStub(datasets).CreateTaxonomy(
            CreateTaxonomyRequest(parent=PROJECT, taxonomy_id="t", taxonomy=Taxonomy(concepts=concepts))
        )
        self._dataset = (
            DatasetServiceStub(datasets)
            .CreateDataset(
                CreateDatasetRequest(parent=PROJECT, dataset_id="d", dataset=Dataset(taxonomy=taxonomy.name))
            )
            .name
        )
        self._campaigns = {}
        for campaign_id, share in (("answers", 0), ("reviews", 1)):
            campaign = Campaign(dataset=self._dataset, concepts=["van", "car", "tram"], review_share=share)
            request = CreateCampaignRequest(parent=PROJECT, campaign_id=campaign_id, campaign=campaign)
            self._campaigns[campaign_id] = CampaignServiceStub(annotation).CreateCampaign(request).name

    def reasons(self, given: list[Annotation]) -> dict[str, str]:
        """Why the annotations are refused, by door; empty where they are accepted."""
        ways: dict[str, Callable[[list[Annotation]], object]] = {
            "direct": self._annotate,
            "import": self._import,
            "event": self._tell,
            "answer": self._submit,
            "review": self._review,
        }
        return {door: _reason(lambda way=way: way(given)) for door, way in ways.items()}  # type: ignore[misc]

    def _item(self, annotations: list[Annotation] | None = None) -> str:
        number = next(self._seeds)
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        media = Media(
            sha256=digest,
            mime_type="image/jpeg",
            width_px=WIDTH_PX,
            height_px=HEIGHT_PX,
            object_key=f"media/{digest}",
            perceptual_hash=int(digest[:16], 16),
        )
        brought = None if annotations is None else AnnotationList(annotations=annotations)
        new = NewItem(media=media, annotations=brought)
        return self._items.BatchCreateItems(BatchCreateItemsRequest(parent=self._dataset, items=[new])).items[0].name

    def _import(self, given: list[Annotation]) -> None:
        self._item(given)

    def _annotate(self, given: list[Annotation]) -> None:
        entry = ItemAnnotations(item=self._item(), annotations=given)
        self._items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=self._dataset, items=[entry]))

    def _tell(self, given: list[Annotation]) -> None:
        told = TaskAccepted(task=f"{PROJECT}/campaigns/c/tasks/t", item=self._item(), annotations=given)
        event = new_event("annotation", told.task, told, datetime.now(UTC))

        def handle(connection: Connection) -> None:
            EventHandlers(self._store).handle_task_accepted(connection, event)

        self._store.postgres.run(handle)

    def _submit(self, given: list[Annotation]) -> None:
        self._answer(self._task("answers"), given)

    def _review(self, given: list[Annotation]) -> None:
        task = self._task("reviews")
        self._answer(task, [VAN])
        review = Review(decision=Review.CORRECT, annotations=given)
        with trace.calling(f"{PROJECT}/members/rosa", "reviewer"):
            self._lease(task, LeasePurpose.LEASE_PURPOSE_REVIEW)
            self._finishing(
                task, lambda: self._reviews.CreateReview(CreateReviewRequest(parent=task.name, review=review))
            )

    def _task(self, campaign: str) -> Task:
        request = BatchCreateTasksRequest(parent=self._campaigns[campaign], tasks=[Task(item=self._item())])
        return self._tasks.BatchCreateTasks(request).tasks[0]

    def _answer(self, task: Task, given: list[Annotation]) -> None:
        request = CreateSubmissionRequest(parent=task.name, submission=Submission(annotations=given))
        with trace.calling(f"{PROJECT}/members/ada", "annotator"):
            self._lease(task, LeasePurpose.LEASE_PURPOSE_ANNOTATE)
            self._finishing(task, lambda: self._submissions.CreateSubmission(request))

    def _lease(self, task: Task, purpose: "LeasePurpose.ValueType") -> None:
        leased = self._tasks.LeaseTasks(
            LeaseTasksRequest(parent=task.name.rpartition("/tasks/")[0], purpose=purpose)
        ).tasks
        assert [one.name for one in leased] == [task.name]

    def _finishing(self, task: Task, call: Callable[[], object]) -> None:
        """Makes a call, and withdraws the task where it is refused, so that the next lease brings another one."""
        try:
            call()
        except InvalidArgument:
            self._tasks.CancelTask(CancelTaskRequest(name=task.name))
            raise


def _reason(call: Callable[[], object]) -> str:
    try:
        call()
    except InvalidArgument as error:
        return error.reason
    return ""


@pytest.fixture
def doors(service_settings: Callable[[str], dict[str, Any]]) -> Iterator[Doors]:
    datasets_settings = DatasetsSettings(**service_settings("datasets"), connection_address="127.0.0.1:1")
    first = Postgres(datasets_settings.postgres_url, datasets_settings.postgres_schema).open()
    first.migrate("vesta_datasets")
    objects = ObjectStore.of(datasets_settings)
    large = LargeAnnotations(objects)
    store = DatasetsStore(first, SystemClock(), large)
    servicers = [
        TaxonomyService(store),
        DatasetService(store, Operations(store, {}), objects),
        ItemService(store, objects),
    ]
    datasets = Server(identity_of("datasets"), "127.0.0.1:0", servicers)
    datasets.start()
    annotation_settings = AnnotationSettings(**service_settings("annotation"), datasets_address=datasets.address)
    second = Postgres(annotation_settings.postgres_url, annotation_settings.postgres_schema).open()
    second.migrate("vesta_annotation")
    peers = open_channel(datasets.address, identity_of("annotation"))
    items, kept = ItemServiceStub(peers), AnnotationStore(second, SystemClock(), large)
    rules = RulesSource(DatasetServiceStub(peers), TaxonomyServiceStub(peers), items)
    annotation = Server(
        identity_of("annotation"),
        "127.0.0.1:0",
        [
            CampaignService(kept, rules),
            TaskService(kept, items),
            SubmissionService(kept, rules),
            ReviewService(kept, rules),
        ],
    )
    annotation.start()
    with (
        open_channel(datasets.address, identity_of("connection")) as one,
        open_channel(annotation.address, identity_of("gateway")) as other,
    ):
        yield Doors(store, one, other)
    annotation.stop()
    datasets.stop()
    peers.close()
    objects.close()
    first.close()
    second.close()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=st.lists(annotations, max_size=3))
@example(given=[])
@example(given=[VAN])
@example(given=[VAN, Annotation(concept="car", image_label=ImageLabel())])
@example(given=[Annotation(concept="tram", box=PixelBox(x_max_px=WIDTH_PX, y_max_px=HEIGHT_PX))])
@example(given=[Annotation(concept="van", mask=Mask(width_px=WIDTH_PX, height_px=HEIGHT_PX, runs_px=[7, 3065]))])
@example(given=[Annotation(concept="van", mask=Mask(width_px=HEIGHT_PX, height_px=WIDTH_PX, runs_px=[3072]))])
@example(given=[Annotation(concept="van", keypoints=Keypoints(points=[Keypoint(label="elbow", point=PixelPoint())]))])
@example(given=[Annotation(concept="van", box=PixelBox(x_max_px=WIDTH_PX + 9, y_max_px=9))])
@example(given=[Annotation(concept="van", track=Track(track_id="1", keyframes=[Keyframe()]))])
def test_all_ways_to_annotate_accept_and_reject_the_same_annotations(doors: Doors, given: list[Annotation]) -> None:
    reasons = doors.reasons(given)
    assert len(set(reasons.values())) == 1, reasons


def test_each_way_to_annotate_accepts_valid_and_rejects_invalid_annotations(doors: Doors) -> None:
    assert set(doors.reasons([VAN]).values()) == {""}
    assert set(doors.reasons([Annotation(concept="airship", image_label=ImageLabel())]).values()) == {"CONCEPT_UNKNOWN"}

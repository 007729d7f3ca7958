"""The training service for tests: clients, a worker, a fake executor, and fakes of other services with one snapshot."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from vesta_common.clock import ManualClock
from vesta_common.errors import Unavailable, VestaError
from vesta_common.resources.methods import missing
from vesta_common.resources.names import parent_of
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.datasets.v1 import (
    Concept,
    Dataset,
    DatasetServiceServicer,
    Snapshot,
    SnapshotServiceServicer,
    Taxonomy,
    TaxonomyServiceServicer,
)
from vesta_contracts.serving.v1 import Deployment, DeploymentServiceServicer, ListDeploymentsResponse
from vesta_contracts.training.v1 import (
    CreateTrainingRunRequest,
    Estimate,
    GetModelVersionRequest,
    GetTrainingRunRequest,
    LearningCurvePoint,
    Metrics,
    ModelServiceStub,
    ModelVersion,
    PretrainedDetectorServiceStub,
    RandomLabels,
    RecipeServiceStub,
    StudyServiceStub,
    TrainingProgress,
    TrainingRun,
    TrainingRunServiceStub,
)
from vesta_training.executors import Observation, State
from vesta_training.models.file_remover import FileRemover
from vesta_training.runs.job import CurveResult, Job, RunResult
from vesta_training.store import Store
from vesta_training.worker import Worker

PROJECT = "projects/acme"
DATASET = f"{PROJECT}/datasets/vans"
SNAPSHOT = f"{DATASET}/snapshots/s1"
TAXONOMY = f"{PROJECT}/taxonomies/t"
CONCEPTS = ("van", "car")
DEADLINE_SECONDS = 10


class OneSnapshot(SnapshotServiceServicer):
    """A fake SnapshotService with one snapshot, which a test can remove."""

    gone = False
    test_item_count, test_hash_assigned_count = 0, 0

    def GetSnapshot(self, request, context):
        if self.gone or request.name != SNAPSHOT:
            raise missing(request.name)
        found = Snapshot(name=SNAPSHOT, manifest_key="manifests/x", digest="d1")
        found.statistics.splits.add(
            split="TEST", item_count=self.test_item_count, hash_assigned_count=self.test_hash_assigned_count
        )
        return found


class OneDataset(DatasetServiceServicer):
    """A fake DatasetService with one dataset."""

    task_type = TaskType.TASK_TYPE_CLASSIFICATION

    def GetDataset(self, request, context):
        if request.name != DATASET:
            raise missing(request.name)
        return Dataset(name=DATASET, taxonomy=TAXONOMY, task_type=self.task_type)


class OneTaxonomy(TaxonomyServiceServicer):
    """A fake TaxonomyService with one taxonomy."""

    def GetTaxonomy(self, request, context):
        if request.name != TAXONOMY:
            raise missing(request.name)
        return Taxonomy(name=TAXONOMY, concepts=[Concept(id=concept) for concept in CONCEPTS])


class SomeDeployments(DeploymentServiceServicer):
    """A fake DeploymentService with the deployments of a test, one per page; it can be made unavailable."""

    def __init__(self) -> None:
        self.known: list[Deployment] = []
        self.away = False

    def ListDeployments(self, request, context):
        if self.away:
            raise Unavailable("serving does not respond")
        known = sorted((one for one in self.known if parent_of(one.name) == request.parent), key=lambda one: one.name)
        number = int(request.page_token or 0)
        more = str(number + 1) if number + 1 < len(known) else ""
        return ListDeploymentsResponse(deployments=known[number : number + 1], next_page_token=more)


class Scripted:
    """A fake executor, which succeeds, fails or crashes as the test requires."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self.outlives_service = False
        self.jobs: list[Job] = []
        self.fails: list[Exception] = []
        self.adds = ModelVersion()
        self.held_out: dict[str, float] = {}
        self.waits: list[str] = []
        self.under_way = 0
        self.cancelled: list[str] = []
        self.work: dict[str, Job] = {}
        self.before_observing: Callable[[], None] = lambda: None

    def start(self, work: str, job: Job) -> None:
        self.jobs.append(job)
        self.work[work] = job

    def observe(self, work: str, timeout: timedelta = timedelta()) -> Observation:
        self.before_observing()
        if work not in self.work:
            return Observation(State.ABSENT)
        if self.waits:
            return Observation(State.PENDING, waiting_reason=self.waits.pop(0))
        if self.under_way:
            self.under_way -= 1
            return Observation(State.RUNNING, TrainingProgress(phase="head"))
        if self.fails:
            del self.work[work]
            raise self.fails.pop(0)
        job = self.work[work]
        if job.measured_key:
            labels = RandomLabels(labels=Estimate(value=120, low=80, high=200))
            point = LearningCurvePoint(label_count=10, metric=Estimate(value=0.6, low=0.5, high=0.7))
            curve = CurveResult((point.SerializeToString(),), labels.SerializeToString())
            return Observation(State.SUCCEEDED, TrainingProgress(phase="curve"), outcome=curve)
        stored = self._objects.put("models", f"onnx of {job.run}".encode())
        version = ModelVersion(task="classification", onnx_key=stored.key, digest=stored.sha256, concepts=job.concepts)
        version.metrics.CopyFrom(Metrics(item_count=10, accuracy={"value": 0.8, "low": 0.5, "high": 0.9}))
        version.MergeFrom(self.adds)
        held_out = Estimate(value=self.held_out.get(job.recipe_name, 0.5)).SerializeToString()
        outcome = RunResult(
            version.SerializeToString(), held_out_accuracy=held_out, comparison_missing=job.champion_missing
        )
        return Observation(State.SUCCEEDED, TrainingProgress(phase="head", step=1, step_count=2), outcome=outcome)

    def cancel(self, work: str) -> None:
        self.cancelled.append(work)
        self.work.pop(work, None)

    def list_work(self) -> list[str]:
        return list(self.work)

    def rest(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing: nothing is open."""


class Training:
    """Clients of the service, and its worker."""

    def __init__(
        self,
        store: Store,
        clock: ManualClock,
        executor: Scripted,
        snapshots: OneSnapshot,
        deployments: SomeDeployments,
        worker_on: Callable[..., Worker],
        objects: ObjectStore,
        file_remover: FileRemover,
        channel: Any,
    ) -> None:
        self.store, self.clock, self.executor = store, clock, executor
        self.snapshots, self.deployments = snapshots, deployments
        self.objects, self.file_remover = objects, file_remover
        self.worker_on, self.worker = worker_on, worker_on(store)
        self.runs = TrainingRunServiceStub(channel)
        self.recipes = RecipeServiceStub(channel)
        self.studies = StudyServiceStub(channel)
        self.models = ModelServiceStub(channel)
        self.pretrained_detectors = PretrainedDetectorServiceStub(channel)

    def a_run(self, run_id: str = "r", **fields: Any) -> TrainingRun:
        wanted = {
            "snapshot": SNAPSHOT,
            "recipe": f"{PROJECT}/recipes/classification",
            "model": f"{PROJECT}/models/vans",
            **fields,
        }
        request = CreateTrainingRunRequest(parent=PROJECT, training_run_id=run_id, training_run=TrainingRun(**wanted))
        return self.runs.CreateTrainingRun(request)

    def get(self, run: TrainingRun) -> TrainingRun:
        return self.runs.GetTrainingRun(GetTrainingRunRequest(name=run.name))

    def a_version(self, run_id: str = "r", **fields: Any) -> ModelVersion:
        """Returns the version of a finished run."""
        run = self.a_run(run_id, **fields)
        self.worker.step()
        return self.models.GetModelVersion(GetModelVersionRequest(name=self.get(run).model_version))

    def event_types(self) -> list[str]:
        with self.store.postgres.transaction() as connection:
            rows = connection.execute("SELECT headers FROM outbox ORDER BY id").fetchall()
        return [dict(row["headers"])["ce_type"].rpartition(".")[2] for row in rows]


def eventually(condition: Callable[[], bool]) -> None:
    """Polls a condition until it holds, or a deadline has passed."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline


def refusal(error: type[VestaError], call: Callable[[], object], reason: str) -> None:
    with pytest.raises(error) as refused:
        call()
    assert refused.value.reason == reason

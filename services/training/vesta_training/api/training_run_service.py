"""TrainingRunService: training runs."""

from datetime import timedelta

import grpc
from google.protobuf import empty_pb2
from vesta_common.errors import FailedPrecondition, InvalidArgument, Violation
from vesta_common.ids import new_id
from vesta_common.resources import filters
from vesta_common.resources.methods import create_once, find_answer
from vesta_common.resources.names import parent_of
from vesta_common.resources.page_keys import by_age, newest_before
from vesta_common.resources.pages import read_page, within_bytes
from vesta_common.runtime.service import BackgroundTask
from vesta_common.storage.postgres import Connection
from vesta_contracts.datasets.v1 import DatasetView, GetDatasetRequest, GetSnapshotRequest
from vesta_contracts.training.v1 import (
    CancelTrainingRunRequest,
    CreateTrainingRunRequest,
    DeleteTrainingRunRequest,
    GetTrainingRunRequest,
    ListTrainingRunsRequest,
    ListTrainingRunsResponse,
    TrainingRun,
    TrainingRunServiceServicer,
)

from vesta_training.recipes.choices import Task
from vesta_training.recipes.recipe import read_recipe
from vesta_training.recipes.recipe_book import RecipeBook
from vesta_training.recipes.task_types import check_dataset, check_version
from vesta_training.runs.job_builder import Datasets
from vesta_training.store import Store

DEADLINE_MIN, DEADLINE_MAX = timedelta(seconds=1), timedelta(days=30)

_FIELDS = {
    "state": filters.Field("state", filters.one_of("QUEUED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED")),
    "snapshot": filters.Field("snapshot"),
    "model": filters.Field("model"),
    "recipe": filters.Field("recipe"),
    "create_time": filters.Field("create_time", filters.instant, ordered=True),
}


class TrainingRunService(TrainingRunServiceServicer):
    """Creates, reads, cancels and deletes training runs.

    Args:
        workers: the workers of this process; they are woken when a run is created.
    """

    def __init__(
        self, store: Store, recipe_book: RecipeBook, datasets: Datasets, workers: list[BackgroundTask]
    ) -> None:
        self._store = store
        self._recipe_book = recipe_book
        self._datasets = datasets
        self._workers = workers

    def CreateTrainingRun(self, request: CreateTrainingRunRequest, context: grpc.ServicerContext) -> TrainingRun:
        """Creates a run, after checking that its recipe, snapshot and champion exist, and that the recipe suits the dataset."""
        if answer := find_answer(self._store.postgres, request, TrainingRun):
            return answer
        requested = request.training_run
        name = f"{request.parent}/trainingRuns/{request.training_run_id or new_id()}"
        recipe_yaml = self._recipe_book.get(requested.recipe).yaml
        self._validate(requested, recipe_yaml)

        def create(connection: Connection) -> TrainingRun:
            run = TrainingRun(
                name=name,
                snapshot=requested.snapshot,
                recipe=requested.recipe,
                model=requested.model,
                champion=requested.champion,
                control_curve=requested.control_curve,
                seed=requested.seed,
            )
            if requested.HasField("deadline"):
                run.deadline.CopyFrom(requested.deadline)
            self._store.runs.insert(connection, run, recipe_yaml)
            return self._store.runs.get(connection, name)

        created = create_once(self._store.postgres, request, TrainingRun, name, create)
        for worker in self._workers:
            worker.wake()
        return created

    def GetTrainingRun(self, request: GetTrainingRunRequest, context: grpc.ServicerContext) -> TrainingRun:
        with self._store.postgres.transaction() as connection:
            return self._store.runs.get(connection, request.name)

    def ListTrainingRuns(
        self, request: ListTrainingRunsRequest, context: grpc.ServicerContext
    ) -> ListTrainingRunsResponse:
        """Lists the runs of a project, newest first."""
        page = read_page(request)
        where = filters.compile_filter(request.filter, _FIELDS)
        with self._store.postgres.transaction() as connection:
            rows = self._store.runs.list_page(connection, request.parent, where, newest_before(page), page.limit)
        runs, token = within_bytes(page, rows).cut(rows, by_age)
        return ListTrainingRunsResponse(training_runs=runs, next_page_token=token)

    def DeleteTrainingRun(self, request: DeleteTrainingRunRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Deletes a finished run."""
        with self._store.postgres.transaction() as connection:
            run = self._store.runs.get(connection, request.name)
            if run.state in {TrainingRun.QUEUED, TrainingRun.RUNNING}:
                raise FailedPrecondition(f"{run.name} is still active; cancel it first", reason="RUN_NOT_ENDED")
            self._store.runs.delete(connection, request.name)
        return empty_pb2.Empty()

    def CancelTrainingRun(self, request: CancelTrainingRunRequest, context: grpc.ServicerContext) -> TrainingRun:
        """Requests the cancellation of a run."""
        with self._store.postgres.transaction() as connection:
            return self._store.runs.request_cancel(connection, request.name)

    def _validate(self, requested: TrainingRun, recipe_yaml: str) -> None:
        recipe = read_recipe(requested.recipe, recipe_yaml)
        if recipe.task is not Task.EMBEDDING and not requested.snapshot:
            raise InvalidArgument(
                f"the recipe {recipe.name} requires a snapshot; set one",
                reason="SNAPSHOT_MISSING",
                violations=[Violation("training_run.snapshot", f"is required by a recipe of task {recipe.task}")],
            )
        if requested.HasField("deadline") and not DEADLINE_MIN <= requested.deadline.ToTimedelta() <= DEADLINE_MAX:
            raise InvalidArgument(
                "the deadline of a run must be between 1 s and 30 days; leave it unset for the default of the service",
                reason="DEADLINE_OUT_OF_RANGE",
                violations=[Violation("training_run.deadline", "must be between 1 s and 30 days")],
            )
        if requested.snapshot:
            snapshot = self._datasets.snapshots.GetSnapshot(GetSnapshotRequest(name=requested.snapshot))
            dataset = GetDatasetRequest(name=parent_of(snapshot.name), view=DatasetView.DATASET_VIEW_BASIC)
            check_dataset(recipe.task, requested.recipe, self._datasets.datasets.GetDataset(dataset))
        with self._store.postgres.transaction() as connection:
            if requested.champion:
                champion = self._store.models.get_version(connection, requested.champion)
                check_version(recipe.task, requested.recipe, champion, "training_run.champion")
            if newest := self._store.models.find_newest(connection, requested.model):
                check_version(recipe.task, requested.recipe, newest, "training_run.model")

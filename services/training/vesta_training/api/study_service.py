"""StudyService: studies, which are groups of training runs over recipes and seeds."""

import grpc
from google.protobuf.empty_pb2 import Empty
from vesta_common.errors import FailedPrecondition
from vesta_common.ids import new_id
from vesta_common.resources.methods import create_once, find_answer
from vesta_common.resources.names import parent_of
from vesta_common.resources.page_keys import by_age, newest_before
from vesta_common.resources.pages import read_page
from vesta_common.runtime.service import BackgroundTask
from vesta_common.storage.postgres import Connection
from vesta_contracts.datasets.v1 import GetSnapshotRequest
from vesta_contracts.training.v1 import (
    CancelStudyRequest,
    CreateStudyRequest,
    DeleteStudyRequest,
    GetStudyRequest,
    ListStudiesRequest,
    ListStudiesResponse,
    Study,
    StudyServiceServicer,
    StudyTrial,
    TrainingRun,
)

from vesta_training.recipes.recipe_book import RecipeBook
from vesta_training.runs.job_builder import Datasets
from vesta_training.store import Store
from vesta_training.store.study_summary import DELETED, summarise


class StudyService(StudyServiceServicer):
    """Creates, reads, cancels and deletes studies. The state of a study is derived from its runs."""

    def __init__(self, store: Store, book: RecipeBook, datasets: Datasets, loops: list[BackgroundTask]) -> None:
        self._store = store
        self._book = book
        self._datasets = datasets
        self._loops = loops

    def CreateStudy(self, request: CreateStudyRequest, context: grpc.ServicerContext) -> Study:
        """Creates a study, with a training run for each recipe and seed."""
        if answer := find_answer(self._store.postgres, request, Study):
            return answer
        requested = request.study
        name = f"{request.parent}/studies/{request.study_id or new_id()}"
        yamls = {recipe: self._book.get(recipe).yaml for recipe in requested.recipes}
        self._datasets.snapshots.GetSnapshot(GetSnapshotRequest(name=requested.snapshot))

        def create(connection: Connection) -> Study:
            study = Study(name=name, snapshot=requested.snapshot, model=requested.model, recipes=requested.recipes)
            study.seed_count = requested.seed_count or 1
            for number, (recipe, seed) in enumerate(
                (recipe, seed) for recipe in study.recipes for seed in range(study.seed_count)
            ):
                run = TrainingRun(
                    name=f"{parent_of(name)}/trainingRuns/{name.rpartition('/')[2]}-{number}",
                    snapshot=study.snapshot,
                    recipe=recipe,
                    model=study.model,
                    seed=seed,
                )
                self._store.runs.insert(connection, run, yamls[recipe])
                study.trials.append(StudyTrial(recipe=recipe, seed=seed, training_run=run.name))
            self._store.studies.insert(connection, study)
            return self._get(connection, name)

        created = create_once(self._store.postgres, request, Study, name, create)
        for loop in self._loops:
            loop.wake()
        return created

    def GetStudy(self, request: GetStudyRequest, context: grpc.ServicerContext) -> Study:
        with self._store.postgres.transaction() as connection:
            return self._get(connection, request.name)

    def ListStudies(self, request: ListStudiesRequest, context: grpc.ServicerContext) -> ListStudiesResponse:
        """Lists the studies of a project, newest first."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            rows = self._store.studies.list_page(connection, request.parent, newest_before(page), page.limit)
            page_rows, token = page.cut(rows, lambda row: by_age(row[0]))
            runs = self._store.runs.list_trials(connection, [study for study, _ in page_rows])
        studies = [summarise(study, runs, cancelled=cancelled) for study, cancelled in page_rows]
        return ListStudiesResponse(studies=studies, next_page_token=token)

    def CancelStudy(self, request: CancelStudyRequest, context: grpc.ServicerContext) -> Study:
        """Requests the cancellation of all runs of a study. A finished study is returned unchanged."""
        with self._store.postgres.transaction() as connection:
            study = self._get(connection, request.name)
            if study.state != Study.RUNNING:
                return study
            self._store.studies.cancel(connection, request.name)
            for trial in study.trials:
                if trial.state != DELETED:
                    self._store.runs.request_cancel(connection, trial.training_run)
            return self._get(connection, request.name)

    def DeleteStudy(self, request: DeleteStudyRequest, context: grpc.ServicerContext) -> Empty:
        """Deletes a finished study. Its runs are kept."""
        with self._store.postgres.transaction() as connection:
            if self._get(connection, request.name).state == Study.RUNNING:
                raise FailedPrecondition(
                    f"{request.name} is still active; cancel it first",
                    reason="STUDY_RUNNING",
                    metadata={"name": request.name},
                )
            self._store.studies.delete(connection, request.name)
        return Empty()

    def _get(self, connection: Connection, name: str) -> Study:
        study, cancelled = self._store.studies.get(connection, name)
        return summarise(study, self._store.runs.list_trials(connection, [study]), cancelled=cancelled)

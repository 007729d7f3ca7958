"""The training service over gRPC: runs wait, are claimed, beat, end once; versions are registered; a dead process costs one attempt."""

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import OperationalError
from vesta_common.client import open_channel
from vesta_common.clock import ManualClock
from vesta_common.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
    VestaError,
)
from vesta_common.messages import copy_of
from vesta_common.objects import ObjectStore
from vesta_common.page_keys import by_name
from vesta_common.pages import read_page
from vesta_common.postgres import Postgres
from vesta_common.server import Server
from vesta_contracts.datasets.v1 import (
    Concept,
    Dataset,
    DatasetServiceServicer,
    DatasetServiceStub,
    Snapshot,
    SnapshotServiceServicer,
    SnapshotServiceStub,
    Taxonomy,
    TaxonomyServiceServicer,
    TaxonomyServiceStub,
)
from vesta_contracts.training.v1 import (
    CancelStudyRequest,
    CancelTrainingRunRequest,
    ConceptMetrics,
    CreateRecipeRequest,
    CreateStudyRequest,
    CreateTrainingRunRequest,
    DeleteRecipeRequest,
    DeleteTrainingRunRequest,
    DownloadModelVersionRequest,
    Estimate,
    GetModelRequest,
    GetModelVersionRequest,
    GetStudyRequest,
    GetTrainingRunRequest,
    ListModelVersionsRequest,
    ListRecipesRequest,
    ListStudiesRequest,
    ListTrainingRunsRequest,
    Metrics,
    ModelServiceStub,
    ModelVersion,
    Recipe,
    RecipeServiceStub,
    Study,
    StudyServiceStub,
    TrainingProgress,
    TrainingRun,
    TrainingRunServiceStub,
    TrainingRunSucceeded,
    UpdateModelRequest,
    UpdateRecipeRequest,
)
from vesta_training import errors
from vesta_training.api.model_service import ModelService
from vesta_training.api.recipe_service import RecipeService
from vesta_training.api.study_service import StudyService
from vesta_training.api.training_run_service import TrainingRunService
from vesta_training.errors import TrainingCancelled
from vesta_training.executor import LocalProcessExecutor
from vesta_training.job import Job, Outcome
from vesta_training.recipe import builtin_yaml
from vesta_training.recipe_book import RecipeBook
from vesta_training.run_folders import run_folder
from vesta_training.settings import Settings
from vesta_training.store import ClaimedRun, Store
from vesta_training.telling import PAGE_BYTES_MAX, within_bytes
from vesta_training.worker import DEATHS_MAX, LEASE, Datasets, Worker

PROJECT = "projects/acme"
SNAPSHOT = f"{PROJECT}/datasets/vans/snapshots/s1"


class OneSnapshot(SnapshotServiceServicer):
    """Knows one snapshot, until it is gone."""

    gone = False

    def GetSnapshot(self, request, context):
        if self.gone or request.name != SNAPSHOT:
            raise NotFound(f"there is no {request.name}", reason="RESOURCE_NOT_FOUND")
        return Snapshot(name=SNAPSHOT, manifest_key="manifests/x", digest="d1")


class OneDataset(DatasetServiceServicer):
    """Knows one dataset."""

    def GetDataset(self, request, context):
        return Dataset(name=request.name, taxonomy=f"{PROJECT}/taxonomies/t")


class OneTaxonomy(TaxonomyServiceServicer):
    """Knows one taxonomy."""

    def GetTaxonomy(self, request, context):
        return Taxonomy(name=request.name, concepts=[Concept(id="van"), Concept(id="car")])


class Scripted:
    """An executor that does what it is told: answers, fails, or dies; behind the same seam as the process."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self.jobs: list[Job] = []
        self.fails: list[Exception] = []
        self.adds = ModelVersion()
        self.held_out: dict[str, float] = {}

    def execute(self, job: Job, pulse: Callable[[TrainingProgress | None], bool]) -> Outcome:
        self.jobs.append(job)
        if pulse(TrainingProgress(phase="head", step=1, step_count=2)):
            raise TrainingCancelled("cancelled")
        if self.fails:
            raise self.fails.pop(0)
        stored = self._objects.put("models", f"onnx of {job.run}".encode())
        version = ModelVersion(task="classification", onnx_key=stored.key, digest=stored.sha256, concepts=job.concepts)
        version.metrics.CopyFrom(Metrics(item_count=10, accuracy={"value": 0.8, "low": 0.5, "high": 0.9}))
        version.MergeFrom(self.adds)
        held_out = Estimate(value=self.held_out.get(job.recipe_name, 0.5)).SerializeToString()
        return Outcome(version.SerializeToString(), held_out_accuracy=held_out)

    def rest(self) -> None:
        """Nothing is kept warm."""

    def close(self) -> None:
        """Nothing is open."""


class Training:
    """The service as its callers see it, and its worker."""

    def __init__(
        self,
        store: Store,
        clock: ManualClock,
        executor: Scripted,
        snapshots: OneSnapshot,
        worker_on: Callable[[Store], Worker],
        channel: Any,
    ) -> None:
        self.store, self.clock, self.executor = store, clock, executor
        self.snapshots = snapshots
        self.worker_on, self.worker = worker_on, worker_on(store)
        self.runs = TrainingRunServiceStub(channel)
        self.recipes = RecipeServiceStub(channel)
        self.studies = StudyServiceStub(channel)
        self.models = ModelServiceStub(channel)

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

    def told(self) -> list[str]:
        with self.store.postgres.transaction() as connection:
            rows = connection.execute("SELECT headers FROM outbox ORDER BY id").fetchall()
        return [dict(row["headers"])["ce_type"].rpartition(".")[2] for row in rows]


@pytest.fixture
def training(service_settings: Callable[[str], dict[str, Any]], tmp_path: Path) -> Iterator[Training]:
    settings = Settings(**service_settings("training"), datasets_address="127.0.0.1:1", work_folder=str(tmp_path))
    postgres = Postgres(settings.postgres_url, settings.postgres_schema).open()
    postgres.migrate("vesta_training")
    clock = ManualClock()
    store, objects = Store(postgres, clock), ObjectStore.of(settings)
    snapshots = OneSnapshot()
    peer = Server("datasets", "127.0.0.1:0", [snapshots, OneDataset(), OneTaxonomy()])
    peer.start()
    channel = open_channel(peer.address, "training")
    datasets = Datasets(DatasetServiceStub(channel), SnapshotServiceStub(channel), TaxonomyServiceStub(channel))
    book, executor = RecipeBook(store), Scripted(objects)
    servicers = [
        RecipeService(store, book),
        TrainingRunService(store, book, datasets, []),
        StudyService(store, book, datasets, []),
        ModelService(store, objects),
    ]
    server = Server("training", "127.0.0.1:0", servicers)
    server.start()
    with open_channel(server.address, "tests") as outside:
        yield Training(
            store,
            clock,
            executor,
            snapshots,
            lambda store: Worker(store, executor, book, datasets, settings.work_folder),
            outside,
        )
    server.stop()
    channel.close()
    peer.stop()
    objects.close()
    postgres.close()


def refusal(error: type[VestaError], call: Callable[[], object], reason: str) -> None:
    with pytest.raises(error) as refused:
        call()
    assert refused.value.reason == reason


def refused(error: type[VestaError], call: Callable[[], object]) -> bool:
    try:
        call()
    except error:
        return True
    return False


def test_a_run_makes_one_version_and_tells_each_step_once(training: Training) -> None:
    run = training.a_run()
    assert training.worker.step()
    ended = training.get(run)
    assert (ended.state, ended.model_version) == (TrainingRun.SUCCEEDED, f"{PROJECT}/models/vans/versions/1")
    assert training.told() == ["started", "progressed", "succeeded", "registered"]
    assert training.executor.jobs[0].concepts == ("van", "car")
    assert not training.worker.step()


def test_the_version_can_be_read_listed_and_downloaded(training: Training) -> None:
    for run_id in ("a", "b"):
        training.a_run(run_id)
        training.worker.step()
    listed = training.models.ListModelVersions(ListModelVersionsRequest(parent=f"{PROJECT}/models/vans")).model_versions
    assert [version.name[-1] for version in listed] == ["2", "1"]
    version = training.models.GetModelVersion(GetModelVersionRequest(name=listed[0].name))
    assert version.training_run.endswith("/b")
    pieces = training.models.DownloadModelVersion(DownloadModelVersionRequest(name=version.name))
    assert b"".join(piece.data for piece in pieces) == f"onnx of {version.training_run}".encode()


def figures_of(concept_count: int) -> Metrics:
    """Figures as large as those of so many concepts."""
    one = Estimate(value=0.9, low=0.8, high=0.95)
    concepts = [
        ConceptMetrics(concept=f"concept-{number}", item_count=9, precision=one, recall=one, f1=0.9)
        for number in range(concept_count)
    ]
    return Metrics(item_count=9 * concept_count, accuracy=one, concepts=concepts, confusion=[0] * concept_count**2)


def test_a_run_on_a_thousand_concepts_succeeds_and_tells_the_figures_that_do_not_grow(training: Training) -> None:
    run = training.a_run()
    claimed = training.store.claim_run(LEASE)
    assert claimed is not None
    figures = figures_of(1000)
    claimed.run.metrics.CopyFrom(figures)
    claimed.run.comparison.champion_metrics.CopyFrom(figures)
    version = ModelVersion(onnx_key="models/x", metrics=figures, card="| concept |\n" * 10_000)
    assert training.store.succeed(claimed.run, version) == f"{PROJECT}/models/vans/versions/1"
    assert len(training.get(run).metrics.confusion) == 1_000_000
    with training.store.postgres.transaction() as connection:
        rows = connection.execute("SELECT value FROM outbox ORDER BY id DESC LIMIT 2").fetchall()
    registered, succeeded = (bytes(row["value"]) for row in rows)
    assert max(len(registered), len(succeeded)) < 1000
    assert TrainingRunSucceeded.FromString(succeeded).training_run.metrics.accuracy.value == 0.9


def test_what_cannot_be_recorded_fails_the_run_with_the_true_reason(training: Training) -> None:
    run = training.a_run()
    training.executor.adds = ModelVersion(task="x" * 1_100_000)  # EVENT_TOO_LARGE
    training.worker.step()
    ended = training.get(run)
    assert (ended.state, ended.model_version) == (TrainingRun.FAILED, "")
    assert "more than 1000000" in ended.error


def test_a_page_of_large_runs_ends_before_it_is_too_large_to_send() -> None:
    rows = [TrainingRun(name=f"r{number}", error="x" * (PAGE_BYTES_MAX // 3)) for number in range(4)]
    page = read_page(ListTrainingRunsRequest(parent=PROJECT))
    kept, token = within_bytes(page, rows).cut(rows, by_name)
    assert ([row.name for row in kept], bool(token)) == (["r0", "r1"], True)
    assert within_bytes(page, rows[:2]).cut(rows[:2], by_name) == (rows[:2], "")


def test_a_page_token_that_was_altered_is_refused(training: Training) -> None:
    for run_id in ("a", "b"):
        training.a_run(run_id)
        training.worker.step()
    request = ListModelVersionsRequest(parent=f"{PROJECT}/models/vans", page_size=1)
    token = training.models.ListModelVersions(request).next_page_token
    question, _ = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    request.page_token = base64.urlsafe_b64encode(json.dumps([question, "two"]).encode()).decode().rstrip("=")
    refusal(InvalidArgument, lambda: training.models.ListModelVersions(request), "PAGE_TOKEN_INVALID")


def test_a_waiting_run_says_why(training: Training) -> None:
    first, second = training.a_run("a"), training.a_run("b")
    assert training.get(second).waiting_reason == "behind 1 other run"
    assert training.get(first).waiting_reason == "for a worker to take it"
    listed = training.runs.ListTrainingRuns(ListTrainingRunsRequest(parent=PROJECT)).training_runs
    assert {run.name: run for run in listed} == {run.name: training.get(run) for run in (first, second)}


def test_a_waiting_run_is_cancelled_at_once_and_a_running_one_by_its_next_beat(training: Training) -> None:
    waiting = training.a_run("a")
    assert training.runs.CancelTrainingRun(CancelTrainingRunRequest(name=waiting.name)).state == TrainingRun.CANCELLED
    running = training.a_run("b")
    claimed = training.store.claim_run(LEASE)
    assert claimed is not None
    training.runs.CancelTrainingRun(CancelTrainingRunRequest(name=running.name))
    assert training.store.heartbeat(claimed, LEASE, None, tell=False) is True
    training.store.release_run(claimed)
    training.worker.step()
    assert training.get(running).state == TrainingRun.CANCELLED


def test_a_run_whose_worker_died_is_taken_over_and_the_dead_one_can_no_more_write(training: Training) -> None:
    run = training.a_run()
    dead = training.store.claim_run(LEASE)
    assert dead is not None
    assert training.store.claim_run(LEASE) is None
    training.clock.advance(LEASE + timedelta(seconds=1))
    assert training.worker.step()
    assert training.store.heartbeat(dead, LEASE, None, tell=False) is None
    assert (training.get(run).state, training.get(run).attempt_count) == (TrainingRun.SUCCEEDED, 2)


def test_a_process_that_dies_is_started_again_and_one_that_always_dies_fails(training: Training) -> None:
    run = training.a_run()
    for _ in range(DEATHS_MAX):
        training.executor.fails.append(Unavailable("it died", reason="TRAINING_PROCESS_DIED"))
        with pytest.raises(Unavailable):
            training.worker.step()
        assert training.get(run).state == TrainingRun.QUEUED
    training.worker.step()
    assert training.get(run).state == TrainingRun.FAILED
    assert f"interrupted {DEATHS_MAX} times" in training.get(run).error


def test_a_run_waits_out_the_absence_of_others_and_says_so(training: Training) -> None:
    run = training.a_run()
    for _ in range(2 * DEATHS_MAX):
        training.executor.fails.append(Unavailable("datasets does not answer"))
        with pytest.raises(Unavailable):
            training.worker.step()
        assert "datasets does not answer" in training.get(run).waiting_reason
    training.worker.step()
    assert (training.get(run).state, training.get(run).waiting_reason) == (TrainingRun.SUCCEEDED, "")


class AwayEveryOtherTime(Store):
    """A database that is away whenever a run is to be given back, and there again when that is tried anew."""

    away = False

    def release_run(self, claimed: ClaimedRun, reason: str = "", *, died: bool = False) -> None:
        self.away = not self.away
        if self.away:
            raise OperationalError("the database is away")
        super().release_run(claimed, reason, died=died)


def test_a_lease_that_ran_out_while_the_database_was_away_is_no_death(training: Training) -> None:
    run = training.a_run()
    worker = training.worker_on(AwayEveryOtherTime(training.store.postgres, training.clock))
    for _ in range(2 * DEATHS_MAX):
        training.executor.fails.append(Unavailable("datasets does not answer"))
        with pytest.raises(OperationalError):
            worker.step()
        training.clock.advance(LEASE + timedelta(seconds=1))
    worker.step()
    assert training.get(run).state == TrainingRun.SUCCEEDED


def test_what_nobody_foresaw_is_tried_again_and_says_so_but_not_for_ever(training: Training) -> None:
    run = training.a_run()
    for _ in range(DEATHS_MAX):
        training.executor.fails.append(RuntimeError("a wheel came off"))
        with pytest.raises(RuntimeError):
            training.worker.step()
        assert "a wheel came off" in training.get(run).waiting_reason
    training.worker.step()
    assert training.get(run).state == TrainingRun.FAILED


def test_the_folder_of_a_run_stays_while_it_goes_on_and_goes_when_it_has_ended(
    training: Training, tmp_path: Path
) -> None:
    runs = [training.a_run(run_id) for run_id in ("cancelled", "deleted", "waiting")]
    folders = [run_folder(tmp_path, run.name) for run in runs]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "finetune.checkpoint").touch()
    for run in runs[:2]:
        training.runs.CancelTrainingRun(CancelTrainingRunRequest(name=run.name))
    training.runs.DeleteTrainingRun(DeleteTrainingRunRequest(name=runs[1].name))
    training.executor.fails.append(Unavailable("datasets does not answer"))
    with pytest.raises(Unavailable):
        training.worker.step()
    assert [folder.exists() for folder in folders] == [False, False, True]


def test_a_run_that_waits_for_others_can_be_cancelled(training: Training) -> None:
    run = training.a_run()
    training.executor.fails.append(Unavailable("datasets does not answer"))
    with pytest.raises(Unavailable):
        training.worker.step()
    assert training.runs.CancelTrainingRun(CancelTrainingRunRequest(name=run.name)).state == TrainingRun.CANCELLED


def test_who_was_slower_than_its_lease_ends_nothing(training: Training) -> None:
    run = training.a_run()
    slow = training.store.claim_run(LEASE)
    assert slow is not None
    training.clock.advance(LEASE + timedelta(seconds=1))
    assert training.store.claim_run(LEASE) is not None
    training.store.succeed(slow.run, ModelVersion(onnx_key="models/x"))
    training.store.fail(slow.run, "it seems to have failed")
    training.store.cancelled(slow.run)
    assert (training.get(run).state, training.get(run).error) == (TrainingRun.RUNNING, "")


def test_what_cannot_be_learned_fails_with_its_reason(training: Training) -> None:
    run = training.a_run()
    training.executor.fails.append(errors.TooFewLabelsError("one concept is no choice; label another"))
    training.worker.step()
    assert (training.get(run).state, training.get(run).error) == (
        TrainingRun.FAILED,
        "one concept is no choice; label another",
    )
    assert training.told()[-1] == "failed"


def test_a_run_on_what_is_not_there_is_refused(training: Training) -> None:
    refusal(NotFound, lambda: training.a_run(snapshot=f"{PROJECT}/datasets/vans/snapshots/none"), "RESOURCE_NOT_FOUND")
    refusal(NotFound, lambda: training.a_run(recipe=f"{PROJECT}/recipes/none"), "RESOURCE_NOT_FOUND")
    refusal(NotFound, lambda: training.a_run(champion=f"{PROJECT}/models/vans/versions/9"), "RESOURCE_NOT_FOUND")
    refusal(InvalidArgument, lambda: training.a_run(snapshot=""), "SNAPSHOT_MISSING")
    training.a_run()
    refusal(AlreadyExists, training.a_run, "RESOURCE_EXISTS")


def test_a_champion_that_is_gone_by_then_fails_the_run(training: Training) -> None:
    training.a_run("a")
    training.worker.step()
    run = training.a_run("b", champion=f"{PROJECT}/models/vans/versions/1")
    with training.store.postgres.transaction() as connection:
        connection.execute("DELETE FROM model_versions")
    training.worker.step()
    assert "champion" in training.get(run).error  # CHAMPION_NOT_FOUND


def test_a_run_is_deleted_once_it_has_ended(training: Training) -> None:
    run = training.a_run()
    request = DeleteTrainingRunRequest(name=run.name)
    refusal(FailedPrecondition, lambda: training.runs.DeleteTrainingRun(request), "RUN_NOT_ENDED")
    training.worker.step()
    training.runs.DeleteTrainingRun(request)
    assert not training.runs.ListTrainingRuns(ListTrainingRunsRequest(parent=PROJECT)).training_runs


def test_the_id_of_a_run_that_made_a_version_is_not_given_again(training: Training) -> None:
    run = training.a_run()
    training.worker.step()
    training.runs.DeleteTrainingRun(DeleteTrainingRunRequest(name=run.name))
    with pytest.raises(AlreadyExists, match=r"made projects/acme/models/vans/versions/1, .*choose another id"):
        training.a_run()
    other = training.a_run("other")
    training.worker.step()
    assert training.get(other).state == TrainingRun.SUCCEEDED


def test_a_repeat_is_answered_with_the_first_run_or_study_though_its_snapshot_is_gone(training: Training) -> None:
    recipe, model = f"{PROJECT}/recipes/classification", f"{PROJECT}/models/vans"
    run = CreateTrainingRunRequest(
        parent=PROJECT, training_run=TrainingRun(snapshot=SNAPSHOT, recipe=recipe, model=model), request_id="once"
    )
    study = CreateStudyRequest(
        parent=PROJECT, study=Study(snapshot=SNAPSHOT, recipes=[recipe], model=model), request_id="once"
    )
    made = training.runs.CreateTrainingRun(run), training.studies.CreateStudy(study)
    training.snapshots.gone = True
    assert (training.runs.CreateTrainingRun(run), training.studies.CreateStudy(study)) == made


def test_a_project_has_the_shipped_recipes_and_its_own(training: Training) -> None:
    own = Recipe(yaml=builtin_yaml("classification"))
    training.recipes.CreateRecipe(CreateRecipeRequest(parent=PROJECT, recipe_id="mine", recipe=own))
    names = [
        one.name.rpartition("/")[2] for one in training.recipes.ListRecipes(ListRecipesRequest(parent=PROJECT)).recipes
    ]
    assert names == ["classification", "classification-finetune", "embedding", "mine", "multilabel"]
    broken = CreateRecipeRequest(parent=PROJECT, recipe_id="broken", recipe=Recipe(yaml="tusk: classification"))
    refusal(InvalidArgument, lambda: training.recipes.CreateRecipe(broken), "RECIPE_INVALID")
    shipped = DeleteRecipeRequest(name=f"{PROJECT}/recipes/embedding")
    refusal(FailedPrecondition, lambda: training.recipes.DeleteRecipe(shipped), "RECIPE_BUILTIN")


def test_a_study_runs_every_recipe_with_every_seed_and_names_the_best(training: Training) -> None:
    recipes = [f"{PROJECT}/recipes/{name}" for name in ("classification", "classification-finetune")]
    study = Study(snapshot=SNAPSHOT, model=f"{PROJECT}/models/vans", recipes=recipes, seed_count=2)
    made = training.studies.CreateStudy(CreateStudyRequest(parent=PROJECT, study_id="s", study=study))
    assert (made.state, len(made.trials)) == (Study.RUNNING, 4)
    training.executor.held_out = {
        "classification": 0.7,
        "classification-finetune": 0.8,
    }  # the test side says 0.8 of both
    while training.worker.step():
        pass
    done = training.studies.GetStudy(GetStudyRequest(name=made.name))
    assert (done.state, done.best_recipe) == (Study.SUCCEEDED, recipes[1])
    assert [trial.accuracy.value for trial in done.trials] == [0.7, 0.7, 0.8, 0.8]
    assert training.studies.ListStudies(ListStudiesRequest(parent=PROJECT)).studies == [done]
    assert training.studies.CancelStudy(CancelStudyRequest(name=made.name)) == done


def test_a_study_that_is_cancelled_ends_its_runs_and_stays_cancelled(training: Training) -> None:
    study = Study(
        snapshot=SNAPSHOT, model=f"{PROJECT}/models/vans", recipes=[f"{PROJECT}/recipes/classification"], seed_count=2
    )
    made = training.studies.CreateStudy(CreateStudyRequest(parent=PROJECT, study_id="s", study=study))
    training.worker.step()
    cancelled = training.studies.CancelStudy(CancelStudyRequest(name=made.name))
    assert cancelled.state == Study.CANCELLED
    assert [trial.state for trial in cancelled.trials] == ["SUCCEEDED", "CANCELLED"]
    assert not training.worker.step()
    assert training.studies.CancelStudy(CancelStudyRequest(name=made.name)) == cancelled


def test_a_run_is_trained_by_the_recipe_as_it_was_when_it_was_asked_for(training: Training) -> None:
    before, after = builtin_yaml("classification"), builtin_yaml("multilabel")
    name = training.recipes.CreateRecipe(
        CreateRecipeRequest(parent=PROJECT, recipe_id="mine", recipe=Recipe(yaml=before))
    ).name
    training.a_run(recipe=name)
    training.recipes.UpdateRecipe(UpdateRecipeRequest(recipe=Recipe(name=name, yaml=after)))
    training.worker.step()
    assert training.executor.jobs[0].recipe_yaml == before


def test_of_two_changes_with_the_same_etag_one_is_refused(training: Training) -> None:
    training.a_run()
    training.worker.step()
    recipe = Recipe(yaml=builtin_yaml("classification"))
    own = training.recipes.CreateRecipe(CreateRecipeRequest(parent=PROJECT, recipe_id="mine", recipe=recipe))
    model = training.models.GetModel(GetModelRequest(name=f"{PROJECT}/models/vans"))

    def change(number: int) -> int:
        copies = copy_of(own, display_name=f"n{number}"), copy_of(model, display_name=f"n{number}")
        calls = (
            lambda: training.recipes.UpdateRecipe(UpdateRecipeRequest(recipe=copies[0])),
            lambda: training.models.UpdateModel(UpdateModelRequest(model=copies[1])),
        )
        return sum(not refused(Aborted, call) for call in calls)

    with ThreadPoolExecutor() as pool:
        assert sum(pool.map(change, range(8))) == 2


def test_recipes_are_paged_through_those_that_ship_and_ones_own(training: Training) -> None:
    for recipe_id in ("aaa", "mine"):
        recipe = Recipe(yaml=builtin_yaml("classification"))
        training.recipes.CreateRecipe(CreateRecipeRequest(parent=PROJECT, recipe_id=recipe_id, recipe=recipe))
    names, token = [], ""
    while True:
        page = training.recipes.ListRecipes(ListRecipesRequest(parent=PROJECT, page_size=1, page_token=token))
        names += [recipe.name.rpartition("/")[2] for recipe in page.recipes]
        token = page.next_page_token
        if not token:
            break
    assert names == ["aaa", "classification", "classification-finetune", "embedding", "mine", "multilabel"]


@pytest.fixture
def process(service_settings: Callable[[str], dict[str, Any]], tmp_path: Path) -> Iterator[LocalProcessExecutor]:
    settings = Settings(**service_settings("training"), datasets_address="127.0.0.1:1", work_folder=str(tmp_path))
    executor = LocalProcessExecutor(settings)
    yield executor
    executor.close()


def a_job(work_folder: Path) -> Job:
    return Job("run", "embedding", builtin_yaml("embedding"), (), "", "", "", "", "", "", False, 0, str(work_folder))


def test_a_process_that_is_killed_says_that_it_died(process: LocalProcessExecutor, tmp_path: Path) -> None:
    def pulse(news: TrainingProgress | None) -> bool:
        process._child.kill()
        return False

    refusal(Unavailable, lambda: process.execute(a_job(tmp_path), pulse), "TRAINING_PROCESS_DIED")


def test_no_job_gets_the_answer_of_one_that_was_left_alone(process: LocalProcessExecutor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def pulse(news: TrainingProgress | None) -> bool:
        raise RuntimeError("the database is away")

    with pytest.raises(RuntimeError):
        process.execute(a_job(tmp_path), pulse)  # it would have ended otherwise than the next one
    refusal(Internal, lambda: process.execute(a_job(tmp_path / "file"), lambda news: False), "TRAINING_CRASHED")


def test_a_process_stops_where_it_is_told_to(process: LocalProcessExecutor, tmp_path: Path) -> None:
    with pytest.raises(TrainingCancelled):
        process.execute(a_job(tmp_path), lambda news: True)


def test_what_no_one_foresaw_is_told_in_words(process: LocalProcessExecutor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refusal(Internal, lambda: process.execute(a_job(tmp_path / "file"), lambda news: False), "TRAINING_CRASHED")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (errors.LearningError, "LEARNING_FAILED"),
        (errors.RecipeError, "RECIPE_INVALID"),
        (errors.WeightsError, "WEIGHTS_REFUSED"),
        (errors.TooFewLabelsError, "TOO_FEW_LABELS"),
        (errors.ExportError, "EXPORT_WRONG"),
    ],
)
def test_each_refusal_of_learning_has_its_own_reason(kind: type[VestaError], reason: str) -> None:
    assert kind("why").reason == reason

"""TrainingRunService: creation, retries, cancellation and deletion of runs, with their versions and events."""

from collections.abc import Callable

import pytest
from training_service import DATASET, PROJECT, SNAPSHOT, OneDataset, Training, refusal
from vesta_common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.training.v1 import (
    CancelTrainingRunRequest,
    CreateRecipeRequest,
    CreateStudyRequest,
    CreateTrainingRunRequest,
    DeleteTrainingRunRequest,
    ListTrainingRunsRequest,
    Recipe,
    Study,
    TrainingRun,
    UpdateRecipeRequest,
)
from vesta_training.recipes.recipe import builtin_yaml


def test_a_run_creates_one_version_and_publishes_each_step_once(training: Training) -> None:
    run = training.a_run()
    assert training.worker.step()
    ended = training.get(run)
    assert (ended.state, ended.model_version) == (TrainingRun.SUCCEEDED, f"{PROJECT}/models/vans/versions/1")
    assert training.event_types() == ["started", "progressed", "succeeded", "registered"]
    assert training.executor.jobs[0].concepts == ("van", "car")
    assert not training.worker.step()


def test_a_run_uses_the_recipe_as_of_its_creation(training: Training) -> None:
    before, after = builtin_yaml("classification"), builtin_yaml("multilabel")
    name = training.recipes.CreateRecipe(
        CreateRecipeRequest(parent=PROJECT, recipe_id="mine", recipe=Recipe(yaml=before))
    ).name
    training.a_run(recipe=name)
    training.recipes.UpdateRecipe(UpdateRecipeRequest(recipe=Recipe(name=name, yaml=after)))
    training.worker.step()
    assert training.executor.jobs[0].recipe_yaml == before


def test_a_pending_run_has_a_reason(training: Training) -> None:
    first, second = training.a_run("a"), training.a_run("b")
    assert training.get(second).waiting_reason == "behind 1 other run"
    assert training.get(first).waiting_reason == "for a free worker"
    listed = training.runs.ListTrainingRuns(ListTrainingRunsRequest(parent=PROJECT)).training_runs
    assert {run.name: run for run in listed} == {run.name: training.get(run) for run in (first, second)}


def test_a_waiting_run_is_cancelled_immediately_and_a_running_one_at_its_next_heartbeat(training: Training) -> None:
    waiting = training.a_run("a")
    assert training.runs.CancelTrainingRun(CancelTrainingRunRequest(name=waiting.name)).state == TrainingRun.CANCELLED
    running = training.a_run("b")
    claimed = training.store.run_queue.claim()
    assert claimed is not None
    training.runs.CancelTrainingRun(CancelTrainingRunRequest(name=running.name))
    assert training.store.run_queue.record_progress(claimed, None, publish_progress=False) is True
    training.store.run_queue.release(claimed)
    training.worker.step()
    assert training.get(running).state == TrainingRun.CANCELLED


def test_a_run_on_missing_resources_is_rejected(training: Training) -> None:
    refusal(NotFound, lambda: training.a_run(snapshot=f"{PROJECT}/datasets/vans/snapshots/none"), "RESOURCE_NOT_FOUND")
    refusal(NotFound, lambda: training.a_run(recipe=f"{PROJECT}/recipes/none"), "RESOURCE_NOT_FOUND")
    refusal(NotFound, lambda: training.a_run(champion=f"{PROJECT}/models/vans/versions/9"), "RESOURCE_NOT_FOUND")
    refusal(InvalidArgument, lambda: training.a_run(snapshot=""), "SNAPSHOT_MISSING")
    refusal(InvalidArgument, lambda: training.a_run(recipe=f"{PROJECT}/recipes/multilabel"), "TASK_TYPE_MISMATCH")
    with pytest.raises(
        InvalidArgument, match=f"detection-finetune is for detection, but {DATASET} is for classification"
    ):
        training.a_run(recipe=f"{PROJECT}/recipes/detection-finetune")
    training.a_run()
    refusal(AlreadyExists, training.a_run, "RESOURCE_EXISTS")


@pytest.mark.parametrize(
    "task_type", sorted(set(TaskType.values()) - {TaskType.TASK_TYPE_UNSPECIFIED, TaskType.TASK_TYPE_CLASSIFICATION})
)
def test_a_dataset_of_any_other_task_type_is_rejected(
    training: Training, monkeypatch: pytest.MonkeyPatch, task_type: TaskType.ValueType
) -> None:
    monkeypatch.setattr(OneDataset, "task_type", task_type)
    with pytest.raises(InvalidArgument, match=f"{DATASET} is for .*; choose ") as rejected:
        training.a_run()
    assert rejected.value.reason in {"TASK_TYPE_UNSUPPORTED", "TASK_TYPE_MISMATCH"}


def test_models_and_champions_of_another_task_type_are_rejected(training: Training) -> None:
    version = training.a_version()
    other = {"recipe": f"{PROJECT}/recipes/embedding", "snapshot": ""}
    into = refused(lambda: training.a_run("b", **other))
    assert into.reason == "TASK_TYPE_MISMATCH"
    assert (
        f"{version.name} is for classification, but {PROJECT}/recipes/embedding trains models for embedding"
        in into.message
    )
    against = refused(lambda: training.a_run("b", **other, model=f"{PROJECT}/models/other", champion=version.name))
    assert (against.reason, against.violations[0].field) == ("TASK_TYPE_MISMATCH", "training_run.champion")
    training.a_run("b", champion=version.name)


def refused(call: Callable[[], object]) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as rejected:
        call()
    return rejected.value


def test_a_run_is_deleted_once_it_has_ended(training: Training) -> None:
    run = training.a_run()
    request = DeleteTrainingRunRequest(name=run.name)
    refusal(FailedPrecondition, lambda: training.runs.DeleteTrainingRun(request), "RUN_NOT_ENDED")
    training.worker.step()
    training.runs.DeleteTrainingRun(request)
    assert not training.runs.ListTrainingRuns(ListTrainingRunsRequest(parent=PROJECT)).training_runs


def test_the_id_of_a_run_with_a_version_is_not_reused(training: Training) -> None:
    run = training.a_run()
    training.worker.step()
    training.runs.DeleteTrainingRun(DeleteTrainingRunRequest(name=run.name))
    with pytest.raises(AlreadyExists, match=r"created projects/acme/models/vans/versions/1, .*choose another id"):
        training.a_run()
    other = training.a_run("other")
    training.worker.step()
    assert training.get(other).state == TrainingRun.SUCCEEDED


def test_a_repeated_request_returns_the_first_run_or_study_after_its_snapshot_is_deleted(training: Training) -> None:
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

"""StudyService: the state of studies, their runs, and their cancellation."""

import pytest
from training_service import PROJECT, SNAPSHOT, Training, refusal
from vesta_common.errors import FailedPrecondition, NotFound
from vesta_contracts.training.v1 import (
    CancelStudyRequest,
    CreateStudyRequest,
    DeleteStudyRequest,
    Estimate,
    GetStudyRequest,
    ListStudiesRequest,
    Study,
    StudyTrial,
    TrainingRun,
)
from vesta_training.store.study_summary import TrialRun, summarise

QUEUED, RUNNING = TrainingRun.QUEUED, TrainingRun.RUNNING
SUCCEEDED, FAILED, CANCELLED = TrainingRun.SUCCEEDED, TrainingRun.FAILED, TrainingRun.CANCELLED


def a_study(*recipes: str) -> Study:
    return Study(trials=[StudyTrial(recipe=recipe, training_run=str(n)) for n, recipe in enumerate(recipes)])


def succeeded(accuracy: float) -> TrialRun:
    return TrialRun(SUCCEEDED, held_out_accuracy=Estimate(value=accuracy))


@pytest.mark.parametrize(
    ("states", "cancelled", "expected"),
    [
        ((QUEUED, QUEUED), False, Study.RUNNING),
        ((SUCCEEDED, RUNNING), False, Study.RUNNING),
        ((SUCCEEDED, SUCCEEDED), False, Study.SUCCEEDED),  # embedding recipes hold out no items
        ((SUCCEEDED, FAILED), False, Study.SUCCEEDED),
        ((FAILED, FAILED), False, Study.FAILED),
        ((SUCCEEDED, CANCELLED), True, Study.CANCELLED),
        ((SUCCEEDED, RUNNING), True, Study.CANCELLED),
    ],
)
def test_the_state_of_a_study_follows_from_its_runs(states: tuple, cancelled: bool, expected: int) -> None:
    runs = {str(number): TrialRun(state) for number, state in enumerate(states)}
    assert summarise(a_study("a", "b"), runs, cancelled=cancelled).state == expected


def test_the_best_recipe_has_the_best_mean_held_out_accuracy() -> None:
    runs = {"0": succeeded(0.9), "1": succeeded(0.5), "2": succeeded(0.8), "3": TrialRun(FAILED)}
    summary = summarise(a_study("a", "a", "b", "b"), runs, cancelled=False)
    assert summary.best_recipe == "b"
    assert [trial.accuracy.value for trial in summary.trials] == [0.9, 0.5, 0.8, 0.0]


def test_without_held_out_accuracy_no_recipe_is_best() -> None:
    assert summarise(a_study("a"), {"0": TrialRun(SUCCEEDED)}, cancelled=False).best_recipe == ""


def test_a_trial_with_a_deleted_run_is_reported() -> None:
    assert summarise(a_study("a"), {}, cancelled=False).trials[0].state == "DELETED"


def test_a_study_runs_every_recipe_with_every_seed_and_names_the_best(training: Training) -> None:
    recipes = [f"{PROJECT}/recipes/{name}" for name in ("classification", "classification-finetune")]
    study = Study(snapshot=SNAPSHOT, model=f"{PROJECT}/models/vans", recipes=recipes, seed_count=2)
    made = training.studies.CreateStudy(CreateStudyRequest(parent=PROJECT, study_id="s", study=study))
    assert (made.state, len(made.trials)) == (Study.RUNNING, 4)
    # The test accuracy of both is 0.8.
    training.executor.held_out = {"classification": 0.7, "classification-finetune": 0.8}
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


def test_deleting_a_finished_study_keeps_its_runs(training: Training) -> None:
    study = Study(snapshot=SNAPSHOT, model=f"{PROJECT}/models/vans", recipes=[f"{PROJECT}/recipes/classification"])
    made = training.studies.CreateStudy(CreateStudyRequest(parent=PROJECT, study_id="s", study=study))
    request = DeleteStudyRequest(name=made.name)
    refusal(FailedPrecondition, lambda: training.studies.DeleteStudy(request), "STUDY_RUNNING")
    training.studies.CancelStudy(CancelStudyRequest(name=made.name))
    training.studies.DeleteStudy(request)
    assert not training.studies.ListStudies(ListStudiesRequest(parent=PROJECT)).studies
    run = TrainingRun(name=made.trials[0].training_run)
    assert training.get(run).state == TrainingRun.CANCELLED
    refusal(NotFound, lambda: training.studies.DeleteStudy(request), "RESOURCE_NOT_FOUND")

"""What a study is, by its runs."""

import pytest
from vesta_contracts.training.v1 import Estimate, Study, StudyTrial, TrainingRun
from vesta_training.studies import TrialRun, summarise

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
        ((SUCCEEDED, SUCCEEDED), False, Study.SUCCEEDED),  # of recipes that only embed, which hold out nothing
        ((SUCCEEDED, FAILED), False, Study.SUCCEEDED),
        ((FAILED, FAILED), False, Study.FAILED),
        ((SUCCEEDED, CANCELLED), True, Study.CANCELLED),
        ((SUCCEEDED, RUNNING), True, Study.CANCELLED),
    ],
)
def test_a_study_is_what_its_runs_are(states: tuple, cancelled: bool, expected: int) -> None:
    runs = {str(number): TrialRun(state) for number, state in enumerate(states)}
    assert summarise(a_study("a", "b"), runs, cancelled=cancelled).state == expected


def test_the_best_recipe_is_that_of_the_best_mean_accuracy_on_what_was_held_out() -> None:
    runs = {"0": succeeded(0.9), "1": succeeded(0.5), "2": succeeded(0.8), "3": TrialRun(FAILED)}
    summary = summarise(a_study("a", "a", "b", "b"), runs, cancelled=False)
    assert summary.best_recipe == "b"
    assert [trial.accuracy.value for trial in summary.trials] == [0.9, 0.5, 0.8, 0.0]


def test_no_recipe_is_best_where_nothing_was_held_out() -> None:
    assert summarise(a_study("a"), {"0": TrialRun(SUCCEEDED)}, cancelled=False).best_recipe == ""


def test_a_trial_whose_run_is_gone_says_so() -> None:
    assert summarise(a_study("a"), {}, cancelled=False).trials[0].state == "DELETED"

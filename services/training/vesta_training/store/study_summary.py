"""Derives the state, the accuracies and the best recipe of a study from its runs. Pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean

from vesta_contracts.training.v1 import Estimate, Study, TrainingRun

_ENDED = {TrainingRun.SUCCEEDED, TrainingRun.FAILED, TrainingRun.CANCELLED}
DELETED = "DELETED"
"""The state of a trial whose run was deleted."""


@dataclass(frozen=True)
class TrialRun:
    """The fields of a run that a study needs.

    Attributes:
        held_out_accuracy: on items that were held out of training, so that the selection of a recipe does not use the test split. None
            if no items were held out, for example for task EMBEDDING.
    """

    state: "TrainingRun.State.ValueType"
    end_time: datetime | None = None
    held_out_accuracy: Estimate | None = None


def summarise(study: Study, runs: Mapping[str, TrialRun], *, cancelled: bool) -> Study:
    """Sets the state, the trials, the best recipe and the end time of a study, and returns it.

    Args:
        runs: the existing runs of its trials, by name.
    """
    accuracies: dict[str, list[float]] = {}
    for trial in study.trials:
        run = runs.get(trial.training_run)
        if run is None:
            trial.state = DELETED
            continue
        trial.state = TrainingRun.State.Name(run.state)
        if run.state == TrainingRun.SUCCEEDED and run.held_out_accuracy is not None:
            trial.accuracy.CopyFrom(run.held_out_accuracy)
            accuracies.setdefault(trial.recipe, []).append(run.held_out_accuracy.value)
    states = {run.state for run in runs.values()}
    if cancelled:
        study.state = Study.CANCELLED
    elif not states <= _ENDED:
        study.state = Study.RUNNING
    else:
        study.state = Study.SUCCEEDED if TrainingRun.SUCCEEDED in states else Study.FAILED
    if accuracies:
        study.best_recipe = max(accuracies, key=lambda recipe: fmean(accuracies[recipe]))
    ends = [run.end_time for run in runs.values() if run.end_time is not None]
    if states <= _ENDED and ends:
        study.end_time.FromDatetime(max(ends))
    return study

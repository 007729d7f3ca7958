"""What a study is, by its runs: its state, its figures, its best recipe. Pure."""

from collections.abc import Mapping
from statistics import fmean

from vesta_contracts.training.v1 import Study, TrainingRun

_ENDED = {TrainingRun.SUCCEEDED, TrainingRun.FAILED, TrainingRun.CANCELLED}


def summarise(study: Study, runs: Mapping[str, TrainingRun], *, cancelled: bool) -> Study:
    """The study with its trials' states and accuracies.

    Args:
        runs: those of its trials that are there still, by name.
    """
    accuracies: dict[str, list[float]] = {}
    for trial in study.trials:
        run = runs.get(trial.training_run)
        if run is None:
            trial.state = "DELETED"
            continue
        trial.state = TrainingRun.State.Name(run.state)
        if run.state == TrainingRun.SUCCEEDED and run.HasField("metrics"):
            trial.accuracy.CopyFrom(run.metrics.accuracy)
            accuracies.setdefault(trial.recipe, []).append(run.metrics.accuracy.value)
    running = [run for run in runs.values() if run.state not in _ENDED]
    if running:
        study.state = Study.CANCELLED if cancelled else Study.RUNNING
    elif cancelled:
        study.state = Study.CANCELLED
    else:
        study.state = Study.SUCCEEDED if accuracies else Study.FAILED
    if accuracies:
        study.best_recipe = max(accuracies, key=lambda recipe: fmean(accuracies[recipe]))
    ends = [run.end_time for run in runs.values() if run.HasField("end_time")]
    if not running and ends:
        study.end_time.CopyFrom(max(ends, key=lambda time: (time.seconds, time.nanos)))
    return study

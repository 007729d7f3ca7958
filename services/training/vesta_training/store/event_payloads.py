"""Limits the size of events: per-concept data of runs and versions is removed from them. Pure functions."""

from vesta_common.messages import copy_of, without
from vesta_contracts.training.v1 import Metrics, ModelVersion, TrainingRun


def run_payload(run: TrainingRun) -> TrainingRun:
    """Returns a run for an event, without the metrics of each concept. Consumers that need them call GetTrainingRun."""
    payload = copy_of(run)
    if payload.HasField("metrics"):
        _keep_totals(payload.metrics)
    if payload.HasField("comparison"):
        payload.comparison.ClearField("concepts")
        _keep_totals(payload.comparison.champion_metrics)
    return payload


def version_payload(version: ModelVersion) -> ModelVersion:
    """Returns a version for an event, without fields that grow with the number of concepts. Consumers can call GetModelVersion."""
    payload = without(version, "concepts", "thresholds", "card", "held_out")
    if payload.HasField("metrics"):
        _keep_totals(payload.metrics)
    return payload


def _keep_totals(metrics: Metrics) -> None:
    metrics.ClearField("concepts")
    metrics.ClearField("confusion")

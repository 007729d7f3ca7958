"""Limits the size of events and pages: per-concept data of runs and versions is removed from events. Pure functions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vesta_common.messages import copy_of, without
from vesta_common.resources.pages import Page
from vesta_contracts.training.v1 import Metrics, ModelVersion, TrainingRun

PAGE_BYTES_MAX = 16 * 1024 * 1024


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
    payload = without(version, "concepts", "thresholds", "card")
    if payload.HasField("metrics"):
        _keep_totals(payload.metrics)
    return payload


def within_bytes(page: Page, rows: Sequence[Any]) -> Page:
    """Returns the page, shortened so that its rows are not larger than `PAGE_BYTES_MAX`. It has at least one row."""
    size_bytes = 0
    for count, row in enumerate(rows):
        size_bytes += row.ByteSize()
        if size_bytes > PAGE_BYTES_MAX and count:
            return replace(page, size=min(page.size, count))
    return page


def _keep_totals(metrics: Metrics) -> None:
    metrics.ClearField("concepts")
    metrics.ClearField("confusion")

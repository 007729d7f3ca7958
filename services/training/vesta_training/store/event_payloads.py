"""What events and pages carry of runs and versions, however many concepts there are. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vesta_common.messages import copy_of, without
from vesta_common.resources.pages import Page
from vesta_contracts.training.v1 import Metrics, ModelVersion, TrainingRun

PAGE_BYTES_MAX = 16 * 1024 * 1024


def told_run(run: TrainingRun) -> TrainingRun:
    """A run as an event tells of it: without the figures of each concept, which whoever wants them reads by its name."""
    told = copy_of(run)
    if told.HasField("metrics"):
        _keep_totals(told.metrics)
    if told.HasField("comparison"):
        told.comparison.ClearField("concepts")
        _keep_totals(told.comparison.champion_metrics)
    return told


def told_version(version: ModelVersion) -> ModelVersion:
    """A version as an event tells of it: without what grows with its concepts, which whoever wants it reads by its name."""
    told = without(version, "concepts", "thresholds", "card")
    if told.HasField("metrics"):
        _keep_totals(told.metrics)
    return told


def within_bytes(page: Page, rows: Sequence[Any]) -> Page:
    """The page, ending earlier where its rows would be more than a call should carry. It holds one row at least."""
    size_bytes = 0
    for count, row in enumerate(rows):
        size_bytes += row.ByteSize()
        if size_bytes > PAGE_BYTES_MAX and count:
            return replace(page, size=min(page.size, count))
    return page


def _keep_totals(metrics: Metrics) -> None:
    metrics.ClearField("concepts")
    metrics.ClearField("confusion")

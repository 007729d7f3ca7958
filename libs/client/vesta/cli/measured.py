"""The metrics that the command line shows for a resource, or the reason why there are none. Pure."""

from google.protobuf.message import Message
from vesta_contracts.conductor.v1 import Loop
from vesta_contracts.datasets.v1 import Dataset
from vesta_contracts.training.v1 import Metrics, ModelVersion, TrainingRun


def measured(resource: Message) -> dict[str, str]:
    """Returns lines of text by topic; empty if there is nothing to show."""
    match resource:
        case TrainingRun() | ModelVersion():
            text = accuracy(resource.metrics) or _unmeasured(resource.metrics_missing_reason)
            return {"accuracy": text} if text else {}
        case Loop():
            status = resource.status
            text = accuracy(status.champion_metrics) or (_unmeasured(status.message) if status.champion else "")
            return {"accuracy": text} if text else {}
        case Dataset():
            return {"testData": _test_data(resource)} if resource.counts.item_count else {}
        case _:
            return {}


def accuracy(metrics: Metrics) -> str:
    """Returns the accuracy with its interval; empty if nothing was measured."""
    if not metrics.item_count:
        return ""
    estimate = metrics.accuracy
    return (
        f"{100 * estimate.value:.1f} % (95 % interval {100 * estimate.low:.1f} to {100 * estimate.high:.1f}) "
        f"on {metrics.item_count} test items"
    )


def _unmeasured(reason: str) -> str:
    return f"not measured: {reason}" if reason else ""


def _test_data(dataset: Dataset) -> str:
    counts = dataset.counts
    if not counts.test_item_count:
        return "none: no item is in the test split, so that models cannot be measured"
    return f"{counts.test_labelled_count} of {counts.test_item_count} test items are labelled"

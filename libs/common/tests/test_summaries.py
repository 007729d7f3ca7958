"""Events about large resources are reduced below the limit; their names and other fields stay."""

import pytest
from vesta_common.events.outbox import EVENT_BYTES_MAX
from vesta_common.events.summaries import summarised
from vesta_contracts.conductor.v1 import LoopRoundCompleted, Round
from vesta_contracts.connection.v1 import Rejection, Sync, SyncSucceeded
from vesta_contracts.serving.v1 import Deployment, DeploymentPromoted, UncertaintyPolicy
from vesta_contracts.training.v1 import ConceptMetrics, Estimate, Metrics


def a_sync(rejections: int) -> SyncSucceeded:
    rejected = [Rejection(file_name="x" * 1000, reason="IMAGE_CORRUPT", message="m") for _ in range(rejections)]
    return SyncSucceeded(sync=Sync(name="s", added_count=7, rejections=rejected))


def test_a_small_event_is_the_same_object() -> None:
    payload = a_sync(3)
    assert summarised(payload) is payload


def test_the_list_that_makes_an_event_too_large_is_removed() -> None:
    payload = a_sync(100)
    assert payload.ByteSize() > EVENT_BYTES_MAX
    assert summarised(payload) == SyncSucceeded(sync=Sync(name="s", added_count=7))
    assert len(payload.sync.rejections) == 100


@pytest.mark.parametrize("concepts", [1000, 10_000])
def test_large_lists_are_removed_and_small_ones_stay(concepts: int) -> None:
    one = Estimate(value=0.9, low=0.8, high=0.95)
    found = [ConceptMetrics(concept=f"concept-{n}", precision=one, recall=one) for n in range(concepts)]
    metrics = Metrics(accuracy=one, concepts=found, confusion=[1, 2, 3, 4])
    summary = summarised(LoopRoundCompleted(loop="l", round=Round(number=3, metrics=metrics)))
    assert summary.round.metrics == Metrics(accuracy=one, confusion=[1, 2, 3, 4])
    thresholds = {f"concept-{n}": 0.5 for n in range(concepts * 5)}
    deployment = Deployment(name="d", uncertainty=UncertaintyPolicy(thresholds=thresholds))
    assert summarised(DeploymentPromoted(deployment=deployment)).ByteSize() < 100

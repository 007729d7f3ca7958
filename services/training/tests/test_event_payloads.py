"""The size of events, pages and rows is limited, for any number of concepts."""

from training_service import PROJECT, Training
from vesta_common.resources.page_keys import by_name
from vesta_common.resources.pages import PAGE_BYTES_MAX, read_page, within_bytes
from vesta_common.risk_control import HELD_OUT_MAX
from vesta_contracts.training.v1 import (
    ConceptMetrics,
    Estimate,
    ListTrainingRunsRequest,
    Metrics,
    ModelVersion,
    TrainingRun,
    TrainingRunSucceeded,
)


def figures_of(concept_count: int) -> Metrics:
    """Returns metrics with this number of concepts."""
    one = Estimate(value=0.9, low=0.8, high=0.95)
    concepts = [
        ConceptMetrics(concept=f"concept-{number}", item_count=9, precision=one, recall=one, f1=0.9)
        for number in range(concept_count)
    ]
    return Metrics(item_count=9 * concept_count, accuracy=one, concepts=concepts, confusion=[0] * concept_count**2)


def test_a_run_on_a_thousand_concepts_publishes_metrics_of_bounded_size(training: Training) -> None:
    run = training.a_run()
    claimed = training.store.run_queue.claim()
    assert claimed is not None
    figures = figures_of(1000)
    claimed.run.metrics.CopyFrom(figures)
    claimed.run.comparison.champion_metrics.CopyFrom(figures)
    version = ModelVersion(onnx_key="models/x", metrics=figures, card="| concept |\n" * 10_000)
    version.held_out.levels.extend([50] * HELD_OUT_MAX)
    assert (
        training.store.run_queue.succeed(claimed, claimed.run, version, None, lambda key: True)
        == f"{PROJECT}/models/vans/versions/1"
    )
    assert len(training.get(run).metrics.confusion) == 1_000_000
    with training.store.postgres.transaction() as connection:
        rows = connection.execute("SELECT value FROM outbox ORDER BY id DESC LIMIT 2").fetchall()
    registered, succeeded = (bytes(row["value"]) for row in rows)
    assert max(len(registered), len(succeeded)) < 1000
    assert TrainingRunSucceeded.FromString(succeeded).training_run.metrics.accuracy.value == 0.9


def test_a_result_that_cannot_be_stored_fails_the_run_with_its_reason(training: Training) -> None:
    run = training.a_run()
    training.executor.adds = ModelVersion(task="x" * 1_100_000)  # EVENT_TOO_LARGE
    training.worker.step()
    ended = training.get(run)
    assert (ended.state, ended.model_version) == (TrainingRun.FAILED, "")
    assert "the maximum is 65536" in ended.error


def test_a_page_of_large_runs_stays_below_the_message_limit() -> None:
    rows = [TrainingRun(name=f"r{number}", error="x" * (PAGE_BYTES_MAX // 3)) for number in range(4)]
    page = read_page(ListTrainingRunsRequest(parent=PROJECT))
    kept, token = within_bytes(page, rows).cut(rows, by_name)
    assert ([row.name for row in kept], bool(token)) == (["r0", "r1"], True)
    assert within_bytes(page, rows[:2]).cut(rows[:2], by_name) == (rows[:2], "")

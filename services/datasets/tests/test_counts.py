"""The maintained counts of a dataset equal a full count of its items, after any sequence of changes."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from datasets_builders import Datasets, Ingest, a_medium, a_png
from random_changes import RandomChanges
from vesta_contracts.datasets.v1 import DatasetCounts, DeleteDatasetRequest, Split
from vesta_datasets.ingest.count_folding import CountFolder
from vesta_datasets.operations.transfers import Import
from vesta_datasets.operations.worker import Operations
from vesta_datasets.store.operations import IMPORT

FULL_COUNT = """
SELECT
    datasets.scored_by AS scored_model_version,
    count(items.name) AS item_count,
    count(*) FILTER (WHERE accepted IS NOT NULL) AS annotated_count,
    count(*) FILTER (WHERE labelled) AS labelled_count,
    count(*) FILTER (WHERE labelled AND split = 'TRAIN' AND NOT straddles) AS train_labelled_count,
    count(*) FILTER (WHERE split = 'TEST' AND NOT straddles) AS test_item_count,
    count(*) FILTER (WHERE labelled AND split = 'TEST' AND NOT straddles) AS test_labelled_count,
    count(*) FILTER (WHERE duplicate_of <> '') AS duplicate_count,
    count(*) FILTER (WHERE pool) AS pool_count,
    count(*) FILTER (WHERE scored) AS scored_count,
    count(*) FILTER (WHERE pool AND scored) AS pool_scored_count,
    count(*) FILTER (WHERE pool AND scored AND NOT uncertain) AS pool_certain_count,
    (SELECT count(*) FROM embeddings WHERE embeddings.dataset = datasets.name) AS embedded_count
FROM datasets LEFT JOIN items ON items.dataset = datasets.name
CROSS JOIN LATERAL (SELECT NOT labelled AND split = 'TRAIN' AND duplicate_of = '' AS pool) AS first
CROSS JOIN LATERAL (SELECT items.scored_by = datasets.scored_by AND items.scored_by <> '' AS scored) AS second
WHERE datasets.name = %s GROUP BY datasets.name
"""


def full_count(datasets: Datasets, dataset: str) -> DatasetCounts:
    with datasets.store.postgres.transaction() as connection:
        row = connection.execute(FULL_COUNT, [dataset]).fetchone()
    assert row is not None
    return DatasetCounts(**row)


def differences(datasets: Datasets) -> list[dict[str, Any]]:
    """Returns the differences that `vesta-admin check` finds."""
    with datasets.store.postgres.transaction() as connection:
        return [
            *connection.execute("SELECT * FROM item_count_differences"),
            *connection.execute("SELECT * FROM embedding_count_differences"),
        ]


def test_counts_equal_a_full_count_after_every_change(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    changes = RandomChanges(datasets, dataset, seed=1)
    for _ in range(60):
        changes.make(2)
        assert datasets.counts(dataset) == full_count(datasets, dataset)
    assert len(full_count(datasets, dataset).ListFields()) >= 10, "the changes reach all counts"
    assert not differences(datasets)


def test_counts_equal_a_full_count_after_concurrent_changes_of_one_dataset(datasets: Datasets) -> None:
    dataset, other = datasets.a_dataset(), datasets.a_dataset("other")
    with ThreadPoolExecutor(4) as pool:
        changes = [RandomChanges(datasets, name, seed) for seed, name in enumerate((dataset, dataset, dataset, other))]
        list(pool.map(lambda change: change.make(40), changes))
    for name in (dataset, other):
        assert datasets.counts(name) == full_count(datasets, name)
    assert not differences(datasets)


def test_imported_items_are_counted_and_those_of_a_deleted_dataset_no_longer(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.begin_import(dataset, {f"{label}/1.png": a_png(label) for label in ("van", "car")})
    importing = Import(datasets.store, datasets.objects, Ingest())  # type: ignore[arg-type]
    assert Operations(datasets.store, {IMPORT: importing}).step()
    assert datasets.counts(dataset).labelled_count == 2
    assert datasets.counts(dataset) == full_count(datasets, dataset)
    datasets.datasets.DeleteDataset(DeleteDatasetRequest(name=dataset))
    assert not differences(datasets)
    CountFolder(datasets.store, changes_min=1).step()
    with datasets.store.postgres.transaction() as connection:
        for table in ("item_counts", "embedding_counts", "item_terms"):
            assert connection.execute(f"SELECT FROM {table}".encode()).fetchone() is None, table


def test_a_new_model_version_resets_the_scored_counts_and_writes_no_count(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    first, second = (one.name for one in datasets.add(dataset, a_medium(1), a_medium(2)))
    datasets.scored(dataset, [first, second], generation=1)
    assert datasets.counts(dataset).scored_count == 2
    with datasets.store.postgres.transaction() as connection:
        before = connection.execute("SELECT count(*) FROM item_counts").fetchone()
    datasets.scored(dataset, [], generation=2)
    with datasets.store.postgres.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM item_counts").fetchone() == before
    assert datasets.counts(dataset).scored_count == 0
    datasets.scored(dataset, [second], generation=2)
    assert datasets.counts(dataset).scored_count == 1


def test_folding_leaves_one_row_per_count_and_changes_none(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    for index in range(5):
        datasets.add(dataset, a_medium(index), split=Split.SPLIT_TRAIN)
    before = datasets.counts(dataset)
    CountFolder(datasets.store, changes_min=6).step()
    with datasets.store.postgres.transaction() as connection:
        assert connection.execute("SELECT count(*) AS rows FROM item_counts").fetchone() == {"rows": 5}
    CountFolder(datasets.store, changes_min=5).step()
    with datasets.store.postgres.transaction() as connection:
        assert connection.execute("SELECT count FROM item_counts").fetchall() == [{"count": 5}]
    assert datasets.counts(dataset) == before

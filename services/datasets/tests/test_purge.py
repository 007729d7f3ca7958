"""A deleted dataset is gone at once; its items are deleted in batches, by whichever process is there."""

from datetime import timedelta

import pytest
from datasets_builders import Datasets, a_medium, refusal, says
from vesta_common.errors import FailedPrecondition, NotFound
from vesta_contracts.datasets.v1 import (
    AcceptedAnnotations,
    BatchGetItemsRequest,
    CreateSnapshotRequest,
    DeleteDatasetRequest,
    DownloadItemRequest,
    GetItemRequest,
    GetSnapshotRequest,
    Item,
    ListItemsRequest,
    Snapshot,
    UpdateItemRequest,
)
from vesta_datasets.operations.purge import Purge
from vesta_datasets.store.items import AcceptResult
from vesta_datasets.task_types.classification import Classification

ROWS = "SELECT count(*) AS count FROM {} WHERE dataset = %s"
TABLES = ("items", "embeddings", "item_terms")


def row_counts(datasets: Datasets, dataset: str) -> list[int]:
    with datasets.store.postgres.transaction() as connection:
        return [connection.execute(ROWS.format(table).encode(), (dataset,)).fetchone()["count"] for table in TABLES]  # type: ignore[index]


@pytest.fixture
def gone(datasets: Datasets) -> tuple[str, list[str], str]:
    """A dataset that was deleted by a process that was killed before it deleted an item: its name, its items, a snapshot."""
    dataset = datasets.a_dataset()
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(10)), labels=("van",))]
    datasets.scored(dataset, names)
    snapshot = datasets.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=dataset, snapshot=Snapshot()))
    with datasets.store.postgres.transaction() as connection:
        datasets.store.datasets.delete(connection, dataset)
    assert row_counts(datasets, dataset)[0] == 10
    return dataset, sorted(names), snapshot.name


def test_nothing_of_a_deleted_dataset_can_be_read_or_changed(
    datasets: Datasets, gone: tuple[str, list[str], str]
) -> None:
    dataset, names, snapshot = gone
    for call in (
        lambda: datasets.items.GetItem(GetItemRequest(name=names[0])),
        lambda: datasets.items.BatchGetItems(BatchGetItemsRequest(parent=dataset, names=names)),
        lambda: datasets.items.ListItems(ListItemsRequest(parent=dataset)),
        lambda: datasets.items.UpdateItem(UpdateItemRequest(item=Item(name=names[0], metadata={"line": "7"}))),
        lambda: list(datasets.items.DownloadItem(DownloadItemRequest(name=names[0]))),
        lambda: datasets.snapshots.GetSnapshot(GetSnapshotRequest(name=snapshot)),
    ):
        refusal(NotFound, call, "RESOURCE_NOT_FOUND")
    with datasets.store.postgres.transaction() as connection:
        assert (
            datasets.store.items.accept(
                connection, names[0], AcceptedAnnotations(annotations=says("car")), Classification()
            )
            is AcceptResult.GONE
        )


def test_another_process_deletes_the_remaining_items_and_the_name_is_free_then(
    datasets: Datasets, gone: tuple[str, list[str], str]
) -> None:
    dataset, _, _ = gone
    other = datasets.a_dataset("other")
    datasets.add(other, a_medium(1), labels=("van",))
    assert Purge(datasets.store, batch_items=4).step()
    assert row_counts(datasets, dataset)[:2] == [6, 6]
    refusal(FailedPrecondition, lambda: datasets.a_dataset(), "DATASET_DELETION_UNFINISHED")
    later = Purge(datasets.store, batch_items=4)
    while later.step():
        pass
    assert row_counts(datasets, dataset) == [0, 0, 0]
    assert datasets.a_dataset() == dataset
    assert not datasets.listed(dataset)
    assert len(datasets.listed(other)) == 1


def test_a_small_dataset_leaves_nothing_when_its_deletion_returns(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, *map(a_medium, range(10)), labels=("van",))
    datasets.datasets.DeleteDataset(DeleteDatasetRequest(name=dataset))
    assert row_counts(datasets, dataset) == [0, 0, 0]
    assert datasets.a_dataset() == dataset


def test_a_deletion_that_takes_long_returns_before_it_has_ended(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, *map(a_medium, range(10)))
    with datasets.store.postgres.transaction() as connection:
        datasets.store.datasets.delete(connection, dataset)
    purge = Purge(datasets.store, batch_items=2)
    purge.run(dataset, wait=timedelta(0))
    assert row_counts(datasets, dataset)[0] == 8
    purge.run(dataset)
    assert row_counts(datasets, dataset)[0] == 0

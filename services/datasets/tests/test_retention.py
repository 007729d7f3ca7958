"""The retention of archives is a day, and that of operations 30 days; pending operations extend both."""

from datetime import UTC, datetime, timedelta

import pytest
from datasets_builders import Datasets, a_medium
from vesta_common.errors import NotFound
from vesta_contracts.datasets.v1 import CreateSnapshotRequest, DeleteDatasetRequest, Snapshot
from vesta_datasets.operations.retention import ARCHIVE_RETENTION, DATASET_RETENTION, OPERATION_RETENTION, Retention


@pytest.fixture
def today(datasets: Datasets) -> Datasets:
    """The service, with a clock at the time of the object store."""
    datasets.advance(datetime.now(UTC) - datasets.store.clock.now())
    return datasets


def end_all(datasets: Datasets) -> None:
    with datasets.store.postgres.transaction() as connection:
        connection.execute("UPDATE operations SET done = true, response = ''")


def archives(datasets: Datasets) -> list[str]:
    return list(datasets.objects.list_keys("archives/"))


def test_archives_are_kept_for_a_day(today: Datasets) -> None:
    today.objects.put_named("archives/acme/a.zip", b"an archive")
    kept = today.objects.put("media", b"a picture").key
    retention = Retention(today.store, today.objects)
    today.advance(ARCHIVE_RETENTION - timedelta(hours=1))
    assert not retention.step()
    assert archives(today) == ["archives/acme/a.zip"]
    today.advance(timedelta(hours=2))
    assert not retention.step()
    assert archives(today) == []
    assert today.objects.exists(kept)


def test_an_archive_is_kept_while_an_operation_waits_for_it(today: Datasets) -> None:
    today.begin_import(today.a_dataset(), {"van/1.jpg": b"1"})
    today.advance(ARCHIVE_RETENTION * 3)
    Retention(today.store, today.objects).step()
    assert archives(today)
    end_all(today)
    Retention(today.store, today.objects).step()
    assert not archives(today)


def test_operations_are_kept_for_a_month_and_until_they_are_done(today: Datasets) -> None:
    operation = today.begin_import(today.a_dataset(), {"van/1.jpg": b"1"})
    today.advance(OPERATION_RETENTION + timedelta(hours=1))
    Retention(today.store, today.objects).step()
    assert not today.operation(operation).done
    end_all(today)
    Retention(today.store, today.objects).step()
    with pytest.raises(NotFound):
        today.operation(operation)


def a_snapshot(datasets: Datasets, dataset_id: str) -> Snapshot:
    """Creates a dataset with a snapshot."""
    dataset = datasets.a_dataset(dataset_id)
    datasets.add(dataset, a_medium(1), labels=("van",))
    return datasets.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=dataset, snapshot=Snapshot()))


def test_the_manifests_of_a_deleted_dataset_are_kept_for_a_day_and_those_of_others_for_ever(today: Datasets) -> None:
    gone, kept = a_snapshot(today, "gone"), a_snapshot(today, "kept")
    today.advance(timedelta(minutes=1))
    today.datasets.DeleteDataset(DeleteDatasetRequest(name=gone.name.partition("/snapshots")[0]))
    retention = Retention(today.store, today.objects)
    today.advance(DATASET_RETENTION - timedelta(minutes=1))
    retention.step()
    assert today.objects.exists(gone.manifest_key)
    today.advance(timedelta(minutes=2))
    retention.step()
    assert not list(today.objects.list_keys("manifests/acme/gone/"))
    assert len(list(today.objects.list_keys("manifests/acme/kept/"))) == 2
    assert today.objects.exists(kept.manifest_key)


def test_the_manifests_of_a_dataset_that_was_created_again_are_kept(today: Datasets) -> None:
    first = a_snapshot(today, "vans")
    today.advance(timedelta(minutes=1))
    today.datasets.DeleteDataset(DeleteDatasetRequest(name=first.name.partition("/snapshots")[0]))
    again = a_snapshot(today, "vans")
    today.advance(DATASET_RETENTION * 2)
    Retention(today.store, today.objects).step()
    assert today.objects.exists(again.manifest_key)

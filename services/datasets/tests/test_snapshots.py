"""Snapshots over gRPC: immutable, compared, exported, and created once per request."""

from pathlib import Path

from datasets_builders import PROJECT, Datasets, a_medium, a_zip, refusal
from vesta_common.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from vesta_common.storage.objects import ObjectRef, ObjectStore
from vesta_common.storage.postgres import Postgres
from vesta_contracts.datasets.v1 import (
    ArchiveFormat,
    CreateSnapshotRequest,
    DeleteDatasetRequest,
    DiffSnapshotsRequest,
    ExportDatasetRequest,
    ImportDatasetRequest,
    Snapshot,
    SnapshotCreated,
)
from vesta_datasets.api.snapshot_service import SnapshotService
from vesta_datasets.snapshot_writer import SnapshotWriter


def test_an_export_requires_a_snapshot_of_the_same_dataset(datasets: Datasets) -> None:
    dataset, other = datasets.a_dataset(), datasets.a_dataset("other")
    datasets.add(other, a_medium(1), labels=("van",))
    snapshot = datasets.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=other, snapshot=Snapshot())).name
    request = ExportDatasetRequest(name=dataset, format=ArchiveFormat.ARCHIVE_FORMAT_COCO, snapshot=snapshot)
    refusal(NotFound, lambda: datasets.datasets.ExportDataset(request), "RESOURCE_NOT_FOUND")


def test_the_event_of_a_snapshot_omits_its_statistics(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, a_medium(1), labels=("van",))
    datasets.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=dataset, snapshot=Snapshot()))
    with datasets.store.postgres.transaction() as connection:
        row = connection.execute("SELECT value FROM outbox ORDER BY id DESC LIMIT 1").fetchone()
    assert row is not None
    told = SnapshotCreated.FromString(bytes(row["value"])).snapshot
    assert (told.item_count, told.HasField("statistics")) == (1, False)


def test_a_snapshot_is_immutable_and_a_diff_lists_the_changes(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(3)))]
    empty = CreateSnapshotRequest(parent=dataset, snapshot=Snapshot())
    refusal(FailedPrecondition, lambda: datasets.snapshots.CreateSnapshot(empty), "SNAPSHOT_EMPTY")
    datasets.annotate(dataset, names[0], "van")
    first = datasets.snapshots.CreateSnapshot(
        CreateSnapshotRequest(parent=dataset, snapshot_id="a", snapshot=Snapshot())
    )
    same = datasets.snapshots.CreateSnapshot(
        CreateSnapshotRequest(parent=dataset, snapshot_id="b", snapshot=Snapshot())
    )
    assert first.digest == same.digest
    datasets.annotate(dataset, names[0], "car")
    datasets.add(dataset, a_medium(9))
    later = datasets.snapshots.CreateSnapshot(
        CreateSnapshotRequest(parent=dataset, snapshot_id="c", snapshot=Snapshot())
    )
    diff = datasets.snapshots.DiffSnapshots(DiffSnapshotsRequest(name=later.name, base=first.name))
    assert (diff.added_count, diff.removed_count, [one.item for one in diff.relabelled]) == (1, 0, [names[0]])
    other = DiffSnapshotsRequest(name=later.name, base=f"{PROJECT}/datasets/x/snapshots/a")
    refusal(InvalidArgument, lambda: datasets.snapshots.DiffSnapshots(other), "SNAPSHOTS_UNRELATED")
    refusal(
        AlreadyExists,
        lambda: datasets.snapshots.CreateSnapshot(
            CreateSnapshotRequest(parent=dataset, snapshot_id="a", snapshot=Snapshot())
        ),
        "RESOURCE_EXISTS",
    )


class WatchedObjects(ObjectStore):
    """An object store that counts the open transactions of the service during a put."""

    def __init__(self, objects: ObjectStore, postgres: Postgres) -> None:
        self._objects = objects
        self._postgres = postgres
        self.open_transactions: list[int] = []

    def put(self, folder: str, content: bytes | Path) -> ObjectRef:
        with self._postgres.connect(autocommit=True) as connection:
            found = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state = 'idle in transaction'",
                (f"vesta-{self._postgres.schema}",),
            ).fetchone()
        assert found is not None
        self.open_transactions.append(found["count"])
        return self._objects.put(folder, content)


def test_no_transaction_is_open_while_a_manifest_is_stored(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, a_medium(1), labels=("van",))
    watched = WatchedObjects(datasets.objects, datasets.store.postgres)
    request = CreateSnapshotRequest(parent=dataset, snapshot=Snapshot(), request_id="once")
    writer = SnapshotWriter(datasets.store, watched)
    SnapshotService(datasets.store, watched, writer).CreateSnapshot(request, None)  # type: ignore[arg-type]
    with datasets.store.postgres.transaction() as connection:
        connection.execute("SELECT 1")
        watched.put("manifests", b"what the watch sees where one is open")
    assert watched.open_transactions == [0, 0, 1]  # a part, the index, and the watch


def test_a_repeated_request_returns_the_first_snapshot_or_operation_after_its_dataset_is_deleted(
    datasets: Datasets,
) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, a_medium(1), labels=("van",))
    layout, archive = ArchiveFormat.ARCHIVE_FORMAT_COCO, "archives/acme/vans.zip"
    datasets.objects.put_named(archive, a_zip({}))
    wanted = CreateSnapshotRequest(parent=dataset, snapshot=Snapshot(), request_id="once")
    snapshot = datasets.snapshots.CreateSnapshot(wanted)
    export = ExportDatasetRequest(name=dataset, format=layout, snapshot=snapshot.name, request_id="once")
    arrival = ImportDatasetRequest(name=dataset, format=layout, archive_key=archive, request_id="once")
    begun = datasets.datasets.ExportDataset(export), datasets.datasets.ImportDataset(arrival)
    datasets.objects.delete(archive)
    datasets.datasets.DeleteDataset(DeleteDatasetRequest(name=dataset))
    assert datasets.snapshots.CreateSnapshot(wanted) == snapshot
    assert (datasets.datasets.ExportDataset(export), datasets.datasets.ImportDataset(arrival)) == begun

"""Snapshots share the parts in which nothing changed, are of one point in time, and equal a snapshot that shares nothing."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_builders import Datasets, a_medium, refusal
from vesta_common.errors import DataLoss
from vesta_common.manifests import read_manifest
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.datasets.v1 import (
    BatchAnnotateItemsRequest,
    CreateSnapshotRequest,
    DeleteDatasetRequest,
    DeleteItemRequest,
    DiffSnapshotsRequest,
    ItemAnnotations,
    Snapshot,
)
from vesta_datasets.api.snapshot_service import SnapshotService
from vesta_datasets.items.splits import Shares
from vesta_datasets.snapshot_writer import SnapshotWriter
from vesta_datasets.snapshots.parts import PartLimits

SMALL = PartLimits(rows_mean=4, rows_max=8)
SHARES = Shares(0.0, 0.25)


class Snapshots:
    """Creates and compares snapshots with small parts."""

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets
        writer = SnapshotWriter(datasets.store, datasets.objects, limits=SMALL)
        self.service = SnapshotService(datasets.store, datasets.objects, writer)

    def create(self, dataset: str) -> Snapshot:
        return self.service.CreateSnapshot(CreateSnapshotRequest(parent=dataset, snapshot=Snapshot()), None)  # type: ignore[arg-type]

    def diff(self, base: Snapshot, later: Snapshot) -> tuple[int, int, int]:
        request = DiffSnapshotsRequest(name=later.name, base=base.name)
        found = self.service.DiffSnapshots(request, None)  # type: ignore[arg-type]
        return found.added_count, found.removed_count, found.relabelled_count

    def parts(self, snapshot: Snapshot) -> list[str]:
        """Returns the keys of the parts."""
        return [part.key for part in read_manifest(self._datasets.objects, snapshot.manifest_key).parts]

    def forget_base(self, dataset: str) -> None:
        """Makes the next snapshot one that shares nothing."""
        with self._datasets.store.postgres.transaction() as connection:
            connection.execute("DELETE FROM snapshot_bases WHERE dataset = %s", (dataset,))


@pytest.fixture
def snapshots(datasets: Datasets) -> Snapshots:
    return Snapshots(datasets)


def a_labelled_dataset(datasets: Datasets, count: int = 60) -> tuple[str, list[str]]:
    """Returns a dataset, and the names of its items in order."""
    dataset = datasets.a_dataset()
    return dataset, sorted(one.name for one in datasets.add(dataset, *map(a_medium, range(count)), labels=("van",)))


def test_a_snapshot_after_one_change_writes_one_part(datasets: Datasets, snapshots: Snapshots) -> None:
    dataset, names = a_labelled_dataset(datasets)
    first = snapshots.create(dataset)
    datasets.annotate(dataset, names[30], "car")
    second = snapshots.create(dataset)
    before, after = snapshots.parts(first), snapshots.parts(second)
    assert len(before) == len(after) > 5
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1
    for key in set(before) & set(after):  # a comparison does not read them
        datasets.objects.delete(key)
    assert snapshots.diff(first, second) == (0, 0, 1)


def test_a_snapshot_without_a_change_is_the_same_object(datasets: Datasets, snapshots: Snapshots) -> None:
    dataset, names = a_labelled_dataset(datasets)
    first = snapshots.create(dataset)
    datasets.scored(dataset, names)  # predictions are not part of snapshots
    second = snapshots.create(dataset)
    assert (first.manifest_key, first.digest) == (second.manifest_key, second.digest)
    assert snapshots.diff(first, second) == (0, 0, 0)


def test_any_sequence_of_changes_results_in_the_snapshot_that_shares_nothing(
    datasets: Datasets, snapshots: Snapshots
) -> None:
    dataset, names = a_labelled_dataset(datasets)
    chance = random.Random(5)
    for round_number in range(6):
        for _ in range(chance.randrange(4)):
            datasets.annotate(dataset, chance.choice(names), chance.choice(["van", "car"]))
        for name in chance.sample(names, chance.randrange(3)):
            datasets.items.DeleteItem(DeleteItemRequest(name=name))
            names.remove(name)
        added = datasets.add(
            dataset, *(a_medium(100 * round_number + 100 + seed) for seed in range(chance.randrange(9)))
        )
        names += [one.name for one in added]
        shared = snapshots.create(dataset)
        snapshots.forget_base(dataset)
        alone = snapshots.create(dataset)
        assert (shared.manifest_key, shared.digest) == (alone.manifest_key, alone.digest)
        assert (shared.item_count, shared.statistics) == (len(names), alone.statistics)


def test_a_change_that_is_committed_after_the_point_in_time_is_in_the_next_snapshot(
    datasets: Datasets, snapshots: Snapshots
) -> None:
    dataset, names = a_labelled_dataset(datasets)
    snapshots.create(dataset)
    with datasets.store.postgres.transaction() as connection:
        connection.execute("UPDATE items SET labels = '{car}' WHERE name = %s", (names[9],))
        without = snapshots.create(dataset)  # does not wait for the transaction
    after = snapshots.create(dataset)
    assert snapshots.diff(without, after) == (0, 0, 1)


def test_two_snapshots_at_a_time_lose_no_change(datasets: Datasets, snapshots: Snapshots) -> None:
    dataset, names = a_labelled_dataset(datasets)
    writer, store = SnapshotWriter(datasets.store, datasets.objects, limits=SMALL), datasets.store
    with writer.draft(dataset, SHARES) as early:
        manifest = writer.write(dataset, early)
        datasets.annotate(dataset, names[9], "car")
        late = snapshots.create(dataset)
        with store.postgres.transaction() as connection:
            store.snapshots.replace_base(connection, dataset, early.seen, manifest.key)
    datasets.annotate(dataset, names[40], "car")
    assert snapshots.diff(late, snapshots.create(dataset)) == (0, 0, 1)


def test_a_snapshot_shows_one_point_in_time_while_items_arrive(datasets: Datasets, snapshots: Snapshots) -> None:
    dataset, names = a_labelled_dataset(datasets)
    with datasets.store.snapshots.point_in_time(dataset, rows_at_once=7) as now:
        rows = now.rows("")
        seen = [next(rows).name for _ in range(10)]
        datasets.add(dataset, *map(a_medium, range(100, 110)), labels=("van",))
        datasets.annotate(dataset, names[50], "car")
        datasets.items.DeleteItem(DeleteItemRequest(name=names[55]))
        rest = list(rows)
    assert seen + [row.name for row in rest] == names
    assert {row.labels for row in rest} == {("van",)}
    assert snapshots.create(dataset).item_count == 69


def test_snapshots_taken_while_items_arrive_lose_none(datasets: Datasets, snapshots: Snapshots) -> None:
    dataset, names = a_labelled_dataset(datasets)
    added, taken = list[str](), list[Snapshot]()
    with ThreadPoolExecutor(2) as pool:

        def add(first: int) -> None:
            for seed in range(first, first + 200, 10):
                added.extend(
                    one.name for one in datasets.add(dataset, *map(a_medium, range(seed, seed + 10)), labels=("van",))
                )

        arriving = [pool.submit(add, first) for first in (1000, 2000)]
        while not all(one.done() for one in arriving):
            at_least = len(added)
            taken.append(snapshots.create(dataset))
            assert taken[-1].item_count >= len(names) + at_least  # what was added before is contained
        for one in arriving:
            one.result()
    last = snapshots.create(dataset)
    assert len(taken) > 1
    assert sorted(taken, key=lambda one: one.item_count) == taken
    assert last.item_count == len(names) + 400
    snapshots.forget_base(dataset)
    assert snapshots.create(dataset).digest == last.digest


def test_changes_of_batches_do_not_wait_for_each_other(datasets: Datasets) -> None:
    _, names = a_labelled_dataset(datasets)
    with datasets.store.postgres.transaction() as one, datasets.store.postgres.transaction() as other:
        for connection, own in ((one, names[:2]), (other, names[2:4]), (one, names[4:6]), (other, names[6:8])):
            connection.execute("SET LOCAL lock_timeout = '1s'")
            connection.execute("UPDATE items SET labels = '{car}' WHERE name = ANY(%s)", (own,))


def test_merged_changes_are_those_of_all_datasets_that_exist(datasets: Datasets, snapshots: Snapshots) -> None:
    dataset, names = a_labelled_dataset(datasets)
    gone = datasets.a_dataset("gone")
    datasets.add(gone, a_medium(1), labels=("van",))
    datasets.datasets.DeleteDataset(DeleteDatasetRequest(name=gone))
    first = snapshots.create(dataset)
    requests = [ItemAnnotations(item=name, annotations=[]) for name in (names[3], names[50])]
    datasets.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=requests))
    with datasets.store.postgres.transaction() as connection:
        datasets.store.snapshots.merge_changes(connection, changes_max=1)
        left = connection.execute("SELECT dataset, first_item, last_item FROM item_changes").fetchall()
    assert left == [{"dataset": dataset, "first_item": names[3], "last_item": names[50]}]
    assert snapshots.diff(first, snapshots.create(dataset)) == (0, 0, 2)


def test_a_missing_part_is_named_and_the_next_snapshot_writes_it_again(
    datasets: Datasets, snapshots: Snapshots
) -> None:
    dataset, names = a_labelled_dataset(datasets)
    first = snapshots.create(dataset)
    datasets.annotate(dataset, names[30], "car")
    second = snapshots.create(dataset)
    lost = next(key for key in snapshots.parts(second) if key not in snapshots.parts(first))
    datasets.objects.delete(lost)
    with pytest.raises(DataLoss, match=f"{lost} of a snapshot is missing") as missing:
        snapshots.diff(first, second)
    assert missing.value.reason == "MANIFEST_UNREADABLE"
    assert snapshots.create(dataset).manifest_key == second.manifest_key
    assert snapshots.diff(first, second) == (0, 0, 1)


def test_a_part_with_another_content_is_refused(datasets: Datasets, snapshots: Snapshots) -> None:
    dataset, names = a_labelled_dataset(datasets)
    first = snapshots.create(dataset)
    datasets.annotate(dataset, names[30], "car")
    second = snapshots.create(dataset)
    before, after = snapshots.parts(first), snapshots.parts(second)
    (own,), (other,) = set(after) - set(before), set(before) - set(after)
    datasets.objects.put_named(own, datasets.objects.get(other))
    refusal(DataLoss, lambda: snapshots.diff(first, second), "OBJECT_CORRUPT")


def test_a_lost_index_makes_the_next_snapshot_share_nothing(datasets: Datasets, snapshots: Snapshots) -> None:
    dataset, _ = a_labelled_dataset(datasets)
    first = snapshots.create(dataset)
    datasets.objects.delete(first.manifest_key)
    assert snapshots.create(dataset).manifest_key == first.manifest_key
    assert snapshots.parts(first)


def in_one_file(objects: ObjectStore, snapshot: Snapshot, folder: Path) -> str:
    """Stores the manifest of a snapshot as earlier versions did, and returns its key."""
    tables = []
    for part in read_manifest(objects, snapshot.manifest_key).parts:
        objects.download(part.key, folder / "part")
        tables.append(pq.read_table(folder / "part"))
    metadata = {"format": "vesta.snapshot.manifest.v1", "digest": "d" * 64}
    pq.write_table(pa.concat_tables(tables).replace_schema_metadata(metadata), folder / "whole", compression="zstd")
    return objects.put("manifests", folder / "whole").key


def test_a_snapshot_of_an_earlier_version_is_compared_with_a_new_one(
    datasets: Datasets, snapshots: Snapshots, tmp_path: Path
) -> None:
    dataset, names = a_labelled_dataset(datasets)
    old = snapshots.create(dataset)
    old.name, old.manifest_key = f"{dataset}/snapshots/old", in_one_file(datasets.objects, old, tmp_path)
    with datasets.store.postgres.transaction() as connection:
        datasets.store.snapshots.insert(connection, old, datasets.store.clock.now())
    datasets.annotate(dataset, names[30], "car")
    assert snapshots.diff(old, snapshots.create(dataset)) == (0, 0, 1)
    assert snapshots.diff(old, old) == (0, 0, 0)


def test_deleting_a_dataset_leaves_the_snapshots_of_others(datasets: Datasets, snapshots: Snapshots) -> None:
    dataset, _ = a_labelled_dataset(datasets)
    other = datasets.a_dataset("other")
    datasets.add(other, *map(a_medium, range(20)), labels=("van",))
    kept = snapshots.create(other)
    snapshots.create(dataset)
    datasets.datasets.DeleteDataset(DeleteDatasetRequest(name=dataset))
    assert all(map(datasets.objects.exists, snapshots.parts(kept)))

"""SnapshotService: creation, listing and comparison of snapshots."""

from dataclasses import asdict

import grpc
from vesta_common.errors import InvalidArgument, Violation
from vesta_common.ids import new_id
from vesta_common.messages import without
from vesta_common.resources.methods import create_once, find_answer, missing
from vesta_common.resources.page_keys import by_age, newest_before
from vesta_common.resources.pages import read_page
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Connection
from vesta_contracts.datasets.v1 import (
    CreateSnapshotRequest,
    DiffSnapshotsRequest,
    GetSnapshotRequest,
    ListSnapshotsRequest,
    ListSnapshotsResponse,
    Snapshot,
    SnapshotCreated,
    SnapshotDiff,
    SnapshotServiceServicer,
    SnapshotStatistics,
    SplitStatistics,
)

from vesta_datasets.items.splits import Shares
from vesta_datasets.snapshot_writer import SnapshotWriter
from vesta_datasets.snapshots.differences import compare
from vesta_datasets.snapshots.statistics import Statistics
from vesta_datasets.store import Store


class SnapshotService(SnapshotServiceServicer):
    """Creates, reads and compares snapshots."""

    def __init__(self, store: Store, objects: ObjectStore, writer: SnapshotWriter) -> None:
        self._store = store
        self._objects = objects
        self._writer = writer

    def CreateSnapshot(self, request: CreateSnapshotRequest, context: grpc.ServicerContext) -> Snapshot:
        """Writes a manifest of the current items and stores the snapshot.

        The manifest is written first. Its keys are content hashes, and nothing refers to it until the row is committed.
        """
        if answer := find_answer(self._store.postgres, request, Snapshot):
            return answer
        with self._store.postgres.transaction() as connection:
            dataset = self._store.datasets.get(connection, request.parent, counted=False)
        name = f"{request.parent}/snapshots/{request.snapshot_id or new_id()}"
        snapshot = Snapshot(name=name, display_name=request.snapshot.display_name)
        now = self._store.clock.now()
        snapshot.create_time.FromDatetime(now)
        with self._writer.draft(request.parent, Shares.of(dataset)) as draft:
            manifest = self._writer.write(request.parent, draft)
        snapshot.manifest_key, snapshot.digest = manifest
        snapshot.item_count = sum(part.item_count for part, _ in draft.parts)
        snapshot.statistics.CopyFrom(_message(draft.statistics))

        def create(connection: Connection) -> Snapshot:
            current = self._store.datasets.get(connection, request.parent, counted=False)
            if current.create_time != dataset.create_time:
                raise missing(request.parent, "it was deleted, and created again, while its items were read; try again")
            self._store.snapshots.insert(connection, snapshot, now)
            self._store.snapshots.replace_base(connection, request.parent, draft.seen, manifest.key)
            # The counts of many concepts can exceed the size limit of an event; consumers that need them get the snapshot.
            self._store.publish(connection, name, SnapshotCreated(snapshot=without(snapshot, "statistics")))
            return snapshot

        return create_once(self._store.postgres, request, Snapshot, name, create)

    def GetSnapshot(self, request: GetSnapshotRequest, context: grpc.ServicerContext) -> Snapshot:
        with self._store.postgres.transaction() as connection:
            return self._store.snapshots.get(connection, request.name)

    def ListSnapshots(self, request: ListSnapshotsRequest, context: grpc.ServicerContext) -> ListSnapshotsResponse:
        """Lists the snapshots of a dataset, newest first."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            self._store.datasets.get(connection, request.parent, counted=False)
            rows = self._store.snapshots.list_page(connection, request.parent, newest_before(page), page.limit)
        snapshots, token = page.cut(rows, by_age)
        return ListSnapshotsResponse(snapshots=snapshots, next_page_token=token)

    def DiffSnapshots(self, request: DiffSnapshotsRequest, context: grpc.ServicerContext) -> SnapshotDiff:
        """Returns the differences between two snapshots of the same dataset."""
        if request.name.split("/")[:4] != request.base.split("/")[:4]:
            raise InvalidArgument(
                "the snapshots are of different datasets; choose two snapshots of the same dataset",
                reason="SNAPSHOTS_UNRELATED",
                violations=[Violation("base", "is of another dataset")],
            )
        with self._store.postgres.transaction() as connection:
            later = self._store.snapshots.get(connection, request.name)
            base = self._store.snapshots.get(connection, request.base)
        return compare(base.manifest_key, later.manifest_key, self._objects)


def _message(statistics: Statistics) -> SnapshotStatistics:
    splits = [SplitStatistics(split=split.value, **asdict(counts)) for split, counts in statistics.splits.items()]
    return SnapshotStatistics(
        splits=splits,
        reviewed_count=statistics.reviewed_count,
        control_count=statistics.control_count,
        control_object_count=statistics.control_object_count,
        imbalance=statistics.imbalance,
    )

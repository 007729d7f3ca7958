"""SnapshotService: creation, listing and comparison of snapshots."""

import grpc
from vesta_common.errors import InvalidArgument, Violation
from vesta_common.ids import new_id
from vesta_common.messages import without
from vesta_common.resources.methods import create_once, find_answer
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
)

from vesta_datasets.items.splits import Shares
from vesta_datasets.snapshots.builder import compare, write_snapshot
from vesta_datasets.store import Store


class SnapshotService(SnapshotServiceServicer):
    """Creates, reads and compares snapshots."""

    def __init__(self, store: Store, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects

    def CreateSnapshot(self, request: CreateSnapshotRequest, context: grpc.ServicerContext) -> Snapshot:
        """Writes a manifest of the current items and stores the snapshot.

        The manifest is written first. Its key is its content hash, and nothing refers to it until the row is committed. No
        transaction is open meanwhile, because the outbox relays of all services wait for the oldest open transaction of the server.
        """
        if answer := find_answer(self._store.postgres, request, Snapshot):
            return answer
        with self._store.postgres.transaction() as connection:
            dataset = self._store.datasets.get(connection, request.parent, counted=False)
        name = f"{request.parent}/snapshots/{request.snapshot_id or new_id()}"
        snapshot = Snapshot(name=name, display_name=request.snapshot.display_name)
        now = self._store.clock.now()
        snapshot.create_time.FromDatetime(now)
        rows = self._store.snapshots.read_manifest_rows(request.parent)
        write_snapshot(snapshot, rows, Shares.of(dataset), self._objects)

        def create(connection: Connection) -> Snapshot:
            self._store.datasets.get(connection, request.parent, counted=False)
            self._store.snapshots.insert(connection, snapshot, now)
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
            found = self._store.snapshots.list_page(connection, request.parent, newest_before(page), page.limit)
        snapshots, token = page.cut(found, by_age)
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
        return compare(base, later, self._objects)

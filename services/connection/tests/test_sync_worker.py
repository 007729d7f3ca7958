"""The worker: one worker at a time runs a Sync, and the effects of a kill, a slow batch or a stop."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from connection_builders import VAULT, Connection, Doing, counts
from vesta_common.disk_space import DiskSpace
from vesta_common.errors import ResourceExhausted
from vesta_common.leases import LeaseLost
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.storage_guard import StorageGuard
from vesta_connection.ingest import Ingest, RejectedFile
from vesta_connection.settings import Settings
from vesta_connection.sources.listing import SourceFile
from vesta_connection.store import Store
from vesta_connection.store.syncs import LEASE_DURATION, FileResult, Syncs
from vesta_connection.syncs.dataset_items import DatasetItems
from vesta_connection.syncs.worker import SyncWorker
from vesta_contracts.common.v1 import Media
from vesta_contracts.connection.v1 import CancelSyncRequest, GetSyncRequest, Source, Sync


class Killed(BaseException):
    """Simulates `kill -9`."""


class KilledAfterAdding(DatasetItems):
    """Simulates a kill after the datasets service has added a batch and before its response arrives."""

    def __init__(self, items: DatasetItems, batches_before: int = 0) -> None:
        self._items = items
        self._batches = batches_before

    def add(
        self, source: Source, files: Sequence[SourceFile], taken: Sequence[Media | RejectedFile], request_id: str
    ) -> list[FileResult]:
        results = self._items.add(source, files, taken, request_id)
        if not self._batches:
            raise Killed
        self._batches -= 1
        return results


def lease_end(connection: Connection, sync: Sync) -> datetime:
    with connection.postgres.transaction() as transaction:
        row = transaction.execute("SELECT lease_expire_time FROM syncs WHERE name = %s", (sync.name,)).fetchone()
    assert row is not None
    return row["lease_expire_time"]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_sync_of_a_killed_worker_resumes_without_counting_anything_twice(connection: Connection) -> None:
    connection.write(*range(70))
    sync = connection.queued(connection.a_folder_source())
    with pytest.raises(Killed):
        connection.a_worker(KilledAfterAdding(connection.items, batches_before=1)).step()
    assert not connection.a_worker().step(), "its lease has not run out"
    connection.clock.advance(LEASE_DURATION * 2)

    connection.a_worker().step()

    ended = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert (ended.state, counts(ended)) == (Sync.SUCCEEDED, {"found": 70, "added": 70})
    assert len(connection.datasets.items) == 70


def test_a_worker_whose_lease_expired_records_nothing(connection: Connection) -> None:
    connection.write(1, 2, 3)
    sync = connection.queued(connection.a_folder_source())

    def overtaken() -> None:
        connection.clock.advance(LEASE_DURATION * 2)
        assert connection.a_worker().step()

    connection.a_worker(Doing(connection.items, overtaken)).step()

    ended = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert (ended.state, counts(ended)) == (Sync.SUCCEEDED, {"found": 3, "added": 3})
    assert sum("sync.v1.succeeded" in told for told in connection.told()) == 1


def test_a_worker_keeps_its_lease_during_a_slow_batch(connection: Connection) -> None:
    connection.write(1, 2, 3)
    sync = connection.queued(connection.a_folder_source())

    def slow() -> None:
        for _ in range(4):
            connection.clock.advance(LEASE_DURATION * 0.75)
            wait_until(lambda: lease_end(connection, sync) > connection.clock.now() + LEASE_DURATION / 2)
        assert not connection.a_worker().step()  # other workers find nothing to do

    connection.a_worker(Doing(connection.items, slow), renew_interval=timedelta(milliseconds=5)).step()

    ended = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert (ended.state, counts(ended)) == (Sync.SUCCEEDED, {"found": 3, "added": 3})


def test_a_sync_waits_for_disk_space_and_then_ingests_the_rest(connection: Connection, settings: Settings) -> None:
    connection.write(1, 2, 3)
    sync = connection.queued(connection.a_folder_source())
    free_bytes = [0]
    guard = StorageGuard(connection.inbox, lambda _: DiskSpace(free_bytes[0], 100))
    kept = ObjectStore.of(settings, guard)
    ingest = Ingest(connection.sandbox, kept, connection.clock)
    worker = SyncWorker(connection.store, ingest, connection.items, connection.allow_list, connection.clock)
    with pytest.raises(ResourceExhausted) as refused:
        worker.step()
    assert refused.value.reason == "STORAGE_FULL"
    waiting = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert waiting.state not in (Sync.FAILED, Sync.SUCCEEDED)

    free_bytes[0] = 100
    assert worker.step()

    ended = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert (ended.state, counts(ended)) == (Sync.SUCCEEDED, {"found": 3, "added": 3})
    ingest.close()


def test_a_worker_keeps_its_lease_during_a_slow_listing(connection: Connection) -> None:
    connection.write(1)
    sync = connection.queued(connection.a_folder_source())
    others: list[bool] = []

    class Slow(Syncs):
        def known_files(self, source: str) -> Any:
            return SlowlyKnown(super().known_files(source))

    class SlowlyKnown(dict[str, Any]):
        def get(self, *_: Any) -> None:
            for _ in range(3):
                connection.clock.advance(LEASE_DURATION * 0.75)
                wait_until(lambda: lease_end(connection, sync) > connection.clock.now() + LEASE_DURATION / 2)
            others.append(connection.a_worker().step())

    store = Store(connection.postgres, connection.clock, VAULT)
    store.syncs = Slow(connection.postgres, connection.clock)
    worker = SyncWorker(
        store,
        connection.ingest,
        connection.items,
        connection.allow_list,
        connection.clock,
        renew_interval=timedelta(milliseconds=5),
    )
    worker.step()

    ended = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert (ended.state, counts(ended), others) == (Sync.SUCCEEDED, {"found": 1, "added": 1}, [False])


def test_a_listing_of_an_expired_lease_is_not_recorded(connection: Connection) -> None:
    sync = connection.queued(connection.a_folder_source())
    slow = connection.store.syncs.claim()
    assert slow is not None
    connection.clock.advance(LEASE_DURATION * 2)
    assert connection.a_worker().step()

    with pytest.raises(LeaseLost):
        connection.store.syncs.record_listing(slow, 7, 7, listed=False)

    assert connection.syncs.GetSync(GetSyncRequest(name=sync.name)).found_count == 0


def test_an_unexpected_error_fails_the_sync_with_its_reason(connection: Connection) -> None:
    def fail() -> None:
        raise RuntimeError("nobody foresaw \udce9")

    connection.write(1)
    sync = connection.queued(connection.a_folder_source())
    connection.a_worker(Doing(connection.items, fail)).step()

    ended = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert (ended.state, "nobody foresaw \\udce9 (RuntimeError)" in ended.error) == (Sync.FAILED, True)


def test_a_stopping_worker_releases_its_sync(connection: Connection) -> None:
    connection.write(1)
    sync = connection.queued(connection.a_folder_source())
    stopping = connection.a_worker()
    stopping.stop()
    stopping.step()

    connection.a_worker().step()

    assert connection.syncs.GetSync(GetSyncRequest(name=sync.name)).added_count == 1


def test_a_sync_cancelled_during_a_slow_batch_ends_before_the_batch(connection: Connection) -> None:
    connection.write(1)
    sync, ended = connection.queued(connection.a_folder_source()), threading.Event()

    def cancel_and_wait() -> None:
        connection.syncs.CancelSync(CancelSyncRequest(name=sync.name))
        assert ended.wait(10)

    items = Doing(connection.items, cancel_and_wait)
    assert connection.a_worker(items, renew_interval=timedelta(milliseconds=5)).step()
    state = connection.syncs.GetSync(GetSyncRequest(name=sync.name)).state
    ended.set()

    assert state == Sync.CANCELLED


def test_a_second_sync_of_a_source_waits_for_the_first(connection: Connection) -> None:
    connection.write(1)
    source = connection.a_folder_source()
    connection.queued(source)
    connection.queued(source)
    others: list[bool] = []

    connection.a_worker(Doing(connection.items, lambda: others.append(connection.a_worker().step()))).step()

    assert others == [False]

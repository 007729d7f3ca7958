"""The SyncService: Syncs are created once, listed, and cancelled."""

import pytest
from connection_builders import Connection, Doing, counts
from vesta_common.errors import FailedPrecondition
from vesta_connection.store.syncs import LEASE_DURATION
from vesta_contracts.connection.v1 import (
    CancelSyncRequest,
    CreateSyncRequest,
    DeleteSourceRequest,
    GetSyncRequest,
    ListSyncsRequest,
    Sync,
)


def test_a_repeated_request_starts_no_second_sync(connection: Connection) -> None:
    request = CreateSyncRequest(parent=connection.a_folder_source().name, request_id="once")

    assert connection.syncs.CreateSync(request).name == connection.syncs.CreateSync(request).name


def test_every_field_of_a_sync_request_has_an_effect() -> None:
    assert [field.name for field in CreateSyncRequest.DESCRIPTOR.fields] == ["parent", "request_id"]


def test_an_upload_source_has_nothing_to_sync(connection: Connection) -> None:
    source = connection.an_upload_source()
    with pytest.raises(FailedPrecondition) as caught:
        connection.syncs.CreateSync(CreateSyncRequest(parent=source.name))
    assert caught.value.reason == "SOURCE_NOT_SYNCABLE"


def test_syncs_are_listed_newest_first_in_pages(connection: Connection) -> None:
    source = connection.a_folder_source()
    names = [connection.queued(source).name for _ in range(3)]
    request = ListSyncsRequest(parent=source.name, page_size=2)
    first = connection.syncs.ListSyncs(request)
    request.page_token = first.next_page_token
    second = connection.syncs.ListSyncs(request)

    assert [sync.name for sync in (*first.syncs, *second.syncs)] == names[::-1]


def test_a_source_cannot_be_deleted_during_a_sync(connection: Connection) -> None:
    source = connection.a_folder_source()
    connection.queued(source)
    with pytest.raises(FailedPrecondition) as caught:
        connection.sources.DeleteSource(DeleteSourceRequest(name=source.name))
    assert caught.value.reason == "SOURCE_SYNCING"


def test_a_queued_sync_is_cancelled_immediately(connection: Connection) -> None:
    sync = connection.queued(connection.a_folder_source())

    cancelled = connection.syncs.CancelSync(CancelSyncRequest(name=sync.name))

    assert (cancelled.state, connection.a_worker().step()) == (Sync.CANCELLED, False)


def test_a_running_sync_that_is_cancelled_keeps_its_items(connection: Connection) -> None:
    connection.write(*range(70))
    sync = connection.queued(connection.a_folder_source())
    cancel = CancelSyncRequest(name=sync.name)

    connection.a_worker(Doing(connection.items, lambda: connection.syncs.CancelSync(cancel))).step()

    ended = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert (ended.state, counts(ended)) == (Sync.CANCELLED, {"found": 70, "added": 64})


def test_a_sync_that_is_cancelled_without_a_worker_ends_cancelled(connection: Connection) -> None:
    connection.write(1)
    sync = connection.queued(connection.a_folder_source())
    assert connection.store.syncs.claim()  # by a worker that was killed
    connection.syncs.CancelSync(CancelSyncRequest(name=sync.name))
    connection.clock.advance(LEASE_DURATION * 2)
    assert connection.a_worker().step()

    ended = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert (ended.state, counts(ended)) == (Sync.CANCELLED, {})


def test_cancelling_a_finished_sync_returns_it_unchanged(connection: Connection) -> None:
    sync = connection.synced(connection.a_folder_source())

    assert connection.syncs.CancelSync(CancelSyncRequest(name=sync.name)) == sync

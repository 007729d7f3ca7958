"""Syncs of folders and buckets on the real engines: what comes in, what is refused, and what a kill costs."""

import errno
import hashlib
import io
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from connection_builders import HOSTILE, Connection, a_jpeg, a_picture, counts, encoded, reasons
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image
from vesta_common.errors import FailedPrecondition, InvalidArgument
from vesta_common.objects import ObjectStore
from vesta_connection.ingest import UNREACHABLE, UNREADABLE, Refused
from vesta_connection.items import Items
from vesta_connection.listing import FsspecTree, SourceFile, check_protocols, open_tree
from vesta_connection.places import Places
from vesta_connection.settings import Settings
from vesta_connection.store import FileResult, Store
from vesta_connection.sync import LEASE, SyncWorker, read_or_refuse
from vesta_contracts.common.v1 import Media
from vesta_contracts.connection.v1 import (
    BucketSource,
    CancelSyncRequest,
    CreateSyncRequest,
    DeleteSourceRequest,
    GetSyncRequest,
    ListSyncsRequest,
    Source,
    Sync,
)


class Killed(BaseException):
    """A process ends here, as kill -9 would end it."""


class KilledAfterAdding(Items):
    """The datasets service has added a batch, and nobody is left to hear it."""

    def __init__(self, items: Items, batches_before: int = 0) -> None:
        self._items = items
        self._batches = batches_before

    def add(
        self, source: Source, files: Sequence[SourceFile], taken: Sequence[Media | Refused], request_id: str
    ) -> list[FileResult]:
        results = self._items.add(source, files, taken, request_id)
        if not self._batches:
            raise Killed
        self._batches -= 1
        return results


class Doing(Items):
    """Lets something happen while a batch is being added."""

    def __init__(self, items: Items, meanwhile: Any) -> None:
        self._items = items
        self._meanwhile = meanwhile

    def add(
        self, source: Source, files: Sequence[SourceFile], taken: Sequence[Media | Refused], request_id: str
    ) -> list[FileResult]:
        self._meanwhile()
        return self._items.add(source, files, taken, request_id)


def bucket_of(settings: Settings, folder: str) -> BucketSource:
    return BucketSource(
        url=f"s3://{settings.s3_bucket}/{settings.s3_prefix}{folder}",
        endpoint_url=settings.s3_endpoint_url,
        access_key_id=settings.s3_access_key,
        secret_access_key=settings.s3_secret_key.get_secret_value(),
    )


def test_a_folder_comes_in_with_its_subfolders_and_provenance(connection: Connection) -> None:
    connection.write(1, 2)
    (connection.inbox / "deep" / "er").mkdir(parents=True)
    (connection.inbox / "deep" / "er" / "photo").write_bytes(a_jpeg(3))
    (connection.inbox / "notes.txt").write_text("no image")
    source = connection.a_folder_source()

    sync = connection.synced(source)

    assert (sync.state, counts(sync)) == (Sync.SUCCEEDED, {"found": 3, "added": 3})
    provenance = {new.media.provenance.file_name: new.media.provenance.source for new in connection.datasets.added}
    assert provenance == {"001.jpg": source.name, "002.jpg": source.name, "deep/er/photo": source.name}


def test_a_second_sync_reads_only_what_is_new_or_changed(connection: Connection) -> None:
    connection.write(1, 2, 3)
    source = connection.a_folder_source()
    connection.synced(source)
    connection.write(4)
    (connection.inbox / "001.jpg").write_bytes(a_jpeg(11))

    assert counts(connection.synced(source)) == {"found": 4, "added": 2, "unchanged": 2}


def test_a_file_replaced_by_one_as_long_and_as_old_is_seen(connection: Connection) -> None:
    path = connection.inbox / "same.jpg"
    one, other = a_jpeg(1), a_jpeg(2)
    length = max(len(one), len(other))
    path.write_bytes(one + bytes(length - len(one)))
    os.utime(path, (1_000_000, 1_000_000))
    source = connection.a_folder_source()
    connection.synced(source)
    path.write_bytes(other + bytes(length - len(other)))
    os.utime(path, (1_000_000, 1_000_000))

    assert counts(connection.synced(source)) == {"found": 1, "added": 1}


def test_a_bucket_comes_in_and_a_second_sync_reads_only_what_changed(
    connection: Connection, settings: Settings
) -> None:
    objects = ObjectStore.of(settings)
    for seed in (1, 2, 3):
        objects.put_named(f"photos/{seed}.jpg", a_jpeg(seed))
    source = connection.a_bucket_source(bucket_of(settings, "photos"))
    first = connection.synced(source)
    objects.put_named("photos/3.jpg", a_jpeg(33))
    second = connection.synced(source)

    assert first.error == second.error == ""
    assert (counts(first), counts(second)) == ({"found": 3, "added": 3}, {"found": 3, "added": 1, "unchanged": 2})


def test_a_folder_of_a_bucket_is_not_what_only_begins_alike(connection: Connection, settings: Settings) -> None:
    objects = ObjectStore.of(settings)
    for seed, key in enumerate(("photos/a.jpg", "photos-private/b.jpg", "photos2.jpg")):
        objects.put_named(key, a_jpeg(seed))
    assert counts(connection.synced(connection.a_bucket_source(bucket_of(settings, "photos/")))) == {
        "found": 1,
        "added": 1,
    }


def test_a_bucket_without_keys_is_not_read_with_the_services_own(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", settings.s3_access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", settings.s3_secret_key.get_secret_value())
    ObjectStore.of(settings).put_named("photos/a.jpg", a_jpeg())
    bucket = bucket_of(settings, "photos")
    bucket.access_key_id = bucket.secret_access_key = ""
    sync = connection.synced(connection.a_bucket_source(bucket))
    assert (sync.state, "AccessDenied" in sync.error) == (Sync.FAILED, True), sync.error


def test_a_bucket_that_does_not_open_fails_the_sync_and_says_why(connection: Connection, settings: Settings) -> None:
    bucket = bucket_of(settings, "photos")
    bucket.url = "s3://there-is-no-such-bucket/photos"

    sync = connection.synced(connection.a_bucket_source(bucket))

    assert (sync.state, "cannot be listed" in sync.error) == (Sync.FAILED, True)
    assert "vesta.connection.sync.v1.failed" in connection.told()[-1]


def test_a_place_that_cannot_be_listed_is_unreachable(connection: Connection, settings: Settings) -> None:
    bucket = bucket_of(settings, "photos")
    bucket.secret_access_key = "wrong"
    with pytest.raises(FailedPrecondition) as caught:
        list(open_tree(Source(bucket=bucket), "wrong", connection.places).files())
    assert caught.value.reason == "SOURCE_UNREACHABLE"


def test_hostile_files_are_refused_with_their_reasons_while_the_rest_comes_in(connection: Connection) -> None:
    for name, (data, _) in HOSTILE.items():
        (connection.inbox / name).write_bytes(data)
    connection.write(1, 2)

    sync = connection.synced(connection.a_folder_source())

    assert reasons(sync) == {name: reason for name, (_, reason) in HOSTILE.items()}
    assert (sync.state, sync.added_count, sync.refused_count) == (Sync.SUCCEEDED, 2, len(HOSTILE))


def test_a_refused_file_is_not_read_again_until_it_changes(connection: Connection) -> None:
    broken = connection.inbox / "broken.jpg"
    broken.write_bytes(a_jpeg(1)[:-200])
    source = connection.a_folder_source()
    first, second = connection.synced(source), connection.synced(source)
    broken.write_bytes(a_jpeg(1))

    assert (counts(first)["refused"], counts(second)) == (1, {"found": 1, "unchanged": 1})
    assert counts(connection.synced(source)) == {"found": 1, "added": 1}


def test_what_cannot_be_named_or_listed_is_refused_alone(connection: Connection) -> None:
    connection.write(1)
    (connection.inbox / os.fsdecode(b"caf\xe9.jpg")).write_bytes(a_jpeg(2))
    long = connection.inbox
    for _ in range(5):
        long = long / ("folder" * 40)
    long.mkdir(parents=True)
    (long / "photo.jpg").write_bytes(a_jpeg(3))

    sync = connection.synced(connection.a_folder_source())

    latin, deep = sorted(reasons(sync))
    assert (latin, deep.startswith("folder"), "…" in deep) == ("caf\\udce9.jpg", True, True)
    assert set(reasons(sync).values()) == {UNREADABLE}
    assert (sync.state, counts(sync)) == (Sync.SUCCEEDED, {"found": 3, "added": 1, "refused": 2})


class Nested(MemoryFileSystem):
    """A thousand folders, each in the one before, and a file at the bottom."""

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        deepest = path.count("/d") == 1000
        return [{"name": f"{path}/{'a.jpg' if deepest else 'd'}", "type": "file" if deepest else "directory"}]


def test_a_thousand_nested_folders_are_walked() -> None:
    (file,) = FsspecTree(Nested(), "/photos").files()
    assert file.unreadable.startswith("its name is longer")


class Closed(MemoryFileSystem):
    """Does not list one folder."""

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        if path.endswith("/closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return super().ls(path, detail, **options)


def test_a_folder_that_is_closed_to_us_is_refused_and_hides_no_other() -> None:
    store = Closed()
    for path in ("/photos/a.jpg", "/photos/closed/b.jpg", "/photos/open/c.jpg"):
        store.pipe_file(path, b"x")
    files = {file.file_name: file.unreadable for file in FsspecTree(store, "/photos").files()}
    assert files == {"a.jpg": "", "closed": "the folder cannot be listed: Permission denied", "open/c.jpg": ""}
    with pytest.raises(FailedPrecondition) as caught:
        list(FsspecTree(store, "/photos/closed").files())
    assert caught.value.reason == "SOURCE_UNREACHABLE"


def test_another_protocol_that_the_operator_allows_is_read(connection: Connection) -> None:
    connection.places = Places((), ("memory",), ())
    MemoryFileSystem().pipe_file("/vans/deep/a.jpg", a_jpeg(1))
    tree = open_tree(Source(bucket=BucketSource(url="memory://vans")), "", connection.places)
    (file,) = tree.files()
    assert (file.file_name, tree.read(file)) == ("deep/a.jpg", a_jpeg(1))


@pytest.mark.parametrize("protocol", ["file", "local", "gs", "nonsense"])
def test_a_protocol_that_cannot_be_used_is_told_at_the_start(protocol: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_protocols(("s3", "memory", protocol))
    assert caught.value.reason == "SOURCE_PROTOCOL_UNUSABLE"


@pytest.mark.parametrize(
    "bucket",
    [
        BucketSource(url="gs://photos"),
        BucketSource(url="s3://photos", endpoint_url="no endpoint"),
        BucketSource(url="s3://photos", access_key_id="key without a secret"),
    ],
)
def test_a_bucket_that_cannot_even_be_opened_is_unreachable(bucket: BucketSource) -> None:
    class Anywhere(Places):
        def check_url(self, *_: Any) -> None:
            """Allows all."""

    with pytest.raises(FailedPrecondition) as caught:
        list(open_tree(Source(bucket=bucket), "", Anywhere((), (), ())).files())
    assert caught.value.reason == "SOURCE_UNREACHABLE"


def test_an_error_that_nobody_foresaw_ends_the_sync_and_says_so(connection: Connection) -> None:
    def fail() -> None:
        raise RuntimeError("nobody foresaw \udce9")

    connection.write(1)
    sync = connection.queued(connection.a_folder_source())
    connection.a_worker(Doing(connection.items, fail)).step()

    ended = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert (ended.state, "nobody foresaw \\udce9 (RuntimeError)" in ended.error) == (Sync.FAILED, True)


def test_a_file_says_where_and_when_it_came_from(connection: Connection, settings: Settings) -> None:
    came = encoded(a_picture(1), "BMP")  # kept as a JPEG
    changed = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    (connection.inbox / "van.bmp").write_bytes(came)
    os.utime(connection.inbox / "van.bmp", (changed.timestamp(), changed.timestamp()))
    source = connection.a_folder_source()
    connection.synced(source)

    (new,) = connection.datasets.added
    provenance = new.media.provenance
    assert (provenance.file_name, provenance.source) == ("van.bmp", source.name)
    assert provenance.taken_time.ToDatetime(UTC) == changed
    assert provenance.original_sha256 == hashlib.sha256(came).hexdigest() != new.media.sha256
    thumbnail = ObjectStore.of(settings).get(new.media.thumbnail_key)
    assert max(Image.open(io.BytesIO(thumbnail)).size) <= 256


def test_an_object_of_a_bucket_says_when_it_was_changed(connection: Connection, settings: Settings) -> None:
    ObjectStore.of(settings).put_named("photos/a.jpg", a_jpeg(1))
    connection.synced(connection.a_bucket_source(bucket_of(settings, "photos")))
    (new,) = connection.datasets.added
    taken = new.media.provenance.taken_time.ToDatetime(UTC)
    assert abs(datetime.now(UTC) - taken) < timedelta(minutes=5)


def test_links_and_pipes_are_not_followed(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(a_jpeg(7))
    (connection.inbox / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (connection.inbox / "outside").symlink_to(tmp_path)
    os.mkfifo(connection.inbox / "pipe.jpg")
    connection.write(1)

    sync = connection.synced(connection.a_folder_source())

    assert reasons(sync) == {"link.jpg": "FILE_UNREADABLE", "outside": "FILE_UNREADABLE"}
    assert (sync.state, sync.added_count) == (Sync.SUCCEEDED, 1)


def test_one_picture_in_two_files_is_one_item(connection: Connection) -> None:
    (connection.inbox / "a.jpg").write_bytes(a_jpeg(1))
    (connection.inbox / "b.jpg").write_bytes(a_jpeg(1))

    assert counts(connection.synced(connection.a_folder_source())) == {"found": 2, "added": 1, "duplicate": 1}


def test_a_killed_workers_sync_is_taken_over_without_counting_anything_twice(connection: Connection) -> None:
    connection.write(*range(70))
    sync = connection.queued(connection.a_folder_source())
    with pytest.raises(Killed):
        connection.a_worker(KilledAfterAdding(connection.items, batches_before=1)).step()
    assert not connection.a_worker().step(), "its lease has not run out"
    connection.clock.advance(LEASE * 2)

    connection.a_worker().step()

    ended = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert (ended.state, counts(ended)) == (Sync.SUCCEEDED, {"found": 70, "added": 70})
    assert len(connection.datasets.items) == 70


def test_a_worker_that_was_slower_than_its_lease_records_nothing_more(connection: Connection) -> None:
    connection.write(1, 2, 3)
    sync = connection.queued(connection.a_folder_source())

    def overtaken() -> None:
        connection.clock.advance(LEASE * 2)
        assert connection.a_worker().step()

    connection.a_worker(Doing(connection.items, overtaken)).step()

    ended = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert (ended.state, counts(ended)) == (Sync.SUCCEEDED, {"found": 3, "added": 3})
    assert sum("sync.v1.succeeded" in told for told in connection.told()) == 1


def test_a_worker_keeps_its_sync_however_long_a_batch_takes(connection: Connection) -> None:
    connection.write(1, 2, 3)
    sync = connection.queued(connection.a_folder_source())

    def slow() -> None:
        for _ in range(4):
            connection.clock.advance(LEASE * 0.75)
            wait_until(lambda: lease_end(connection, sync) > connection.clock.now() + LEASE / 2)
        assert not connection.a_worker().step()  # nobody else finds anything to do

    connection.a_worker(Doing(connection.items, slow), keep_interval=timedelta(milliseconds=5)).step()

    ended = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert (ended.state, counts(ended)) == (Sync.SUCCEEDED, {"found": 3, "added": 3})


def test_a_worker_keeps_its_sync_however_slowly_its_source_is_listed(connection: Connection) -> None:
    connection.write(1)
    sync = connection.queued(connection.a_folder_source())
    others: list[bool] = []

    class Slow(Store):
        def known_files(self, source: str) -> Any:
            return SlowlyKnown(super().known_files(source))

    class SlowlyKnown(dict[str, Any]):
        def get(self, *_: Any) -> None:
            for _ in range(3):
                connection.clock.advance(LEASE * 0.75)
                wait_until(lambda: lease_end(connection, sync) > connection.clock.now() + LEASE / 2)
            others.append(connection.a_worker().step())

    worker = SyncWorker(
        Slow(connection.postgres, connection.clock),
        connection.ingest,
        connection.items,
        connection.places,
        connection.clock,
        keep_interval=timedelta(milliseconds=5),
    )
    worker.step()

    ended = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert (ended.state, counts(ended), others) == (Sync.SUCCEEDED, {"found": 1, "added": 1}, [False])


def test_a_listing_of_a_sync_that_was_taken_over_is_not_recorded(connection: Connection) -> None:
    sync = connection.queued(connection.a_folder_source())
    slow = connection.store.claim_sync(connection.clock.now(), LEASE)
    assert slow is not None
    connection.clock.advance(LEASE * 2)
    assert connection.a_worker().step()

    connection.store.record_listing(slow, 7, 7, listed=False)

    assert connection.syncs.GetSync(GetSyncRequest(name=sync.name)).found_count == 0


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


def test_a_file_that_could_not_be_read_is_looked_at_again(connection: Connection, tmp_path: Path) -> None:
    connection.write(1)
    (tmp_path / "elsewhere.jpg").write_bytes(a_jpeg(2))
    (connection.inbox / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    source = connection.a_folder_source()
    first, second = connection.synced(source), connection.synced(source)
    assert (counts(first), counts(second)) == (
        {"found": 2, "added": 1, "refused": 1},
        {"found": 2, "unchanged": 1, "refused": 1},
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError("gone"), UNREADABLE),
        (PermissionError("closed"), UNREADABLE),
        (OSError("denied"), UNREACHABLE),
    ],
)
def test_what_a_store_does_not_hand_out_is_refused_and_hurts_no_other_file(error: OSError, reason: str) -> None:
    class Tree(FsspecTree):
        def read(self, file: SourceFile) -> bytes:
            raise error

    refused = read_or_refuse(Tree(None, "photos"), SourceFile("a.jpg", "1", "photos/a.jpg", 1))
    assert isinstance(refused, Refused)
    assert refused.reason == reason


def test_a_sync_cancelled_while_it_runs_keeps_what_it_brought_in(connection: Connection) -> None:
    connection.write(*range(70))
    sync = connection.queued(connection.a_folder_source())
    cancel = CancelSyncRequest(name=sync.name)

    connection.a_worker(Doing(connection.items, lambda: connection.syncs.CancelSync(cancel))).step()

    ended = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert (ended.state, counts(ended)) == (Sync.CANCELLED, {"found": 70, "added": 64})


def test_a_sync_cancelled_while_nobody_works_on_it_ends_cancelled(connection: Connection) -> None:
    connection.write(1)
    sync = connection.queued(connection.a_folder_source())
    assert connection.store.claim_sync(connection.clock.now(), LEASE)  # by a worker that was killed
    connection.syncs.CancelSync(CancelSyncRequest(name=sync.name))
    connection.clock.advance(LEASE * 2)
    assert connection.a_worker().step()

    ended = connection.syncs.GetSync(GetSyncRequest(name=sync.name))
    assert (ended.state, counts(ended)) == (Sync.CANCELLED, {})


def test_a_queued_sync_is_cancelled_at_once(connection: Connection) -> None:
    sync = connection.queued(connection.a_folder_source())

    cancelled = connection.syncs.CancelSync(CancelSyncRequest(name=sync.name))

    assert (cancelled.state, connection.a_worker().step()) == (Sync.CANCELLED, False)


def test_cancelling_an_ended_sync_answers_it_as_it_is(connection: Connection) -> None:
    sync = connection.synced(connection.a_folder_source())

    assert connection.syncs.CancelSync(CancelSyncRequest(name=sync.name)) == sync


def test_a_stopping_worker_gives_its_sync_to_the_next(connection: Connection) -> None:
    connection.write(1)
    sync = connection.queued(connection.a_folder_source())
    stopping = connection.a_worker()
    stopping.stop()
    stopping.step()

    connection.a_worker().step()

    assert connection.syncs.GetSync(GetSyncRequest(name=sync.name)).added_count == 1


def test_a_second_sync_of_a_source_waits_for_the_first(connection: Connection) -> None:
    connection.write(1)
    source = connection.a_folder_source()
    connection.queued(source)
    connection.queued(source)
    others: list[bool] = []

    connection.a_worker(Doing(connection.items, lambda: others.append(connection.a_worker().step()))).step()

    assert others == [False]


def test_the_folder_that_is_gone_fails_the_sync(connection: Connection) -> None:
    (connection.inbox / "gone").mkdir()
    source = connection.a_folder_source(path=connection.inbox / "gone")
    (connection.inbox / "gone").rmdir()

    assert connection.synced(source).state == Sync.FAILED


def test_a_source_cannot_be_deleted_while_it_is_synced(connection: Connection) -> None:
    source = connection.a_folder_source()
    connection.queued(source)
    with pytest.raises(FailedPrecondition) as caught:
        connection.sources.DeleteSource(DeleteSourceRequest(name=source.name))
    assert caught.value.reason == "SOURCE_SYNCING"


def test_an_upload_source_has_nothing_to_sync(connection: Connection) -> None:
    source = connection.an_upload_source()
    with pytest.raises(FailedPrecondition) as caught:
        connection.syncs.CreateSync(CreateSyncRequest(parent=source.name))
    assert caught.value.reason == "SOURCE_NOT_SYNCABLE"


def test_repeating_the_request_for_a_sync_starts_no_second_one(connection: Connection) -> None:
    request = CreateSyncRequest(parent=connection.a_folder_source().name, request_id="once")

    assert connection.syncs.CreateSync(request).name == connection.syncs.CreateSync(request).name


def test_syncs_are_listed_newest_first_page_by_page(connection: Connection) -> None:
    source = connection.a_folder_source()
    names = [connection.queued(source).name for _ in range(3)]
    request = ListSyncsRequest(parent=source.name, page_size=2)
    first = connection.syncs.ListSyncs(request)
    request.page_token = first.next_page_token
    second = connection.syncs.ListSyncs(request)

    assert [sync.name for sync in (*first.syncs, *second.syncs)] == names[::-1]

"""Listing of folders and buckets: what is found, and what cannot be read."""

import errno
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from connection_builders import Connection, a_jpeg, counts
from fsspec.implementations.memory import MemoryFileSystem
from vesta_common.errors import FailedPrecondition, InvalidArgument
from vesta_common.storage.objects import ObjectStore
from vesta_connection.settings import Settings
from vesta_connection.sources.allow_list import AllowList
from vesta_connection.sources.listing import FsspecTree, check_protocols, open_tree
from vesta_connection.sources.pinned_addresses import PinnedAddresses
from vesta_contracts.connection.v1 import BucketSource, Source, Sync


def bucket_of(settings: Settings, folder: str) -> BucketSource:
    return BucketSource(
        url=f"s3://{settings.s3_bucket}/{settings.s3_prefix}{folder}",
        endpoint_url=settings.s3_endpoint_url,
        access_key_id=settings.s3_access_key,
        secret_access_key=settings.s3_secret_key.get_secret_value(),
    )


def test_a_second_sync_of_a_bucket_reads_only_changed_objects(connection: Connection, settings: Settings) -> None:
    objects = ObjectStore.of(settings)
    for seed in (1, 2, 3):
        objects.put_named(f"photos/{seed}.jpg", a_jpeg(seed))
    source = connection.a_bucket_source(bucket_of(settings, "photos"))
    first = connection.synced(source)
    objects.put_named("photos/3.jpg", a_jpeg(33))
    second = connection.synced(source)

    assert first.error == second.error == ""
    assert (counts(first), counts(second)) == ({"found": 3, "added": 3}, {"found": 3, "added": 1, "unchanged": 2})


def test_a_prefix_of_a_bucket_ends_at_a_slash(connection: Connection, settings: Settings) -> None:
    objects = ObjectStore.of(settings)
    for seed, key in enumerate(("photos/a.jpg", "photos-private/b.jpg", "photos2.jpg")):
        objects.put_named(key, a_jpeg(seed))
    assert counts(connection.synced(connection.a_bucket_source(bucket_of(settings, "photos/")))) == {
        "found": 1,
        "added": 1,
    }


def test_an_object_of_a_bucket_has_its_modification_time(connection: Connection, settings: Settings) -> None:
    ObjectStore.of(settings).put_named("photos/a.jpg", a_jpeg(1))
    connection.synced(connection.a_bucket_source(bucket_of(settings, "photos")))
    (new,) = connection.datasets.added
    taken = new.media.provenance.taken_time.ToDatetime(UTC)
    assert abs(datetime.now(UTC) - taken) < timedelta(minutes=5)


def test_a_bucket_without_credentials_is_not_read_with_those_of_the_service(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", settings.s3_access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", settings.s3_secret_key.get_secret_value())
    ObjectStore.of(settings).put_named("photos/a.jpg", a_jpeg())
    bucket = bucket_of(settings, "photos")
    bucket.access_key_id = bucket.secret_access_key = ""
    sync = connection.synced(connection.a_bucket_source(bucket))
    assert (sync.state, "AccessDenied" in sync.error) == (Sync.FAILED, True), sync.error


def test_an_inaccessible_bucket_fails_the_sync_with_its_reason(connection: Connection, settings: Settings) -> None:
    bucket = bucket_of(settings, "photos")
    bucket.url = "s3://there-is-no-such-bucket/photos"

    sync = connection.synced(connection.a_bucket_source(bucket))

    assert (sync.state, "cannot be listed" in sync.error) == (Sync.FAILED, True)
    assert "vesta.connection.sync.v1.failed" in connection.told()[-1]


@pytest.mark.parametrize(
    "bucket",
    [
        BucketSource(url="gs://photos"),
        BucketSource(url="s3://photos", endpoint_url="no endpoint"),
        BucketSource(url="s3://photos", access_key_id="key without a secret"),
    ],
)
def test_a_bucket_that_cannot_be_opened_is_unreachable(bucket: BucketSource) -> None:
    class Anywhere(AllowList):
        def check_url(self, *_: Any) -> PinnedAddresses:
            """Allows everything."""
            return PinnedAddresses(lambda host, _: [host])

    with pytest.raises(FailedPrecondition) as caught:
        list(open_tree(Source(bucket=bucket), "", Anywhere((), (), ())).files())
    assert caught.value.reason == "SOURCE_UNREACHABLE"


def test_a_source_that_cannot_be_listed_is_unreachable(connection: Connection, settings: Settings) -> None:
    bucket = bucket_of(settings, "photos")
    bucket.secret_access_key = "wrong"
    with pytest.raises(FailedPrecondition) as caught:
        list(open_tree(Source(bucket=bucket), "wrong", connection.allow_list).files())
    assert caught.value.reason == "SOURCE_UNREACHABLE"


def test_a_missing_folder_fails_the_sync(connection: Connection) -> None:
    (connection.inbox / "gone").mkdir()
    source = connection.a_folder_source(path=connection.inbox / "gone")
    (connection.inbox / "gone").rmdir()

    assert connection.synced(source).state == Sync.FAILED


class Closed(MemoryFileSystem):
    """Fails to list one folder."""

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        if path.endswith("/closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return super().ls(path, detail, **options)


def test_an_unreadable_folder_is_reported_and_hides_no_other() -> None:
    store = Closed()
    for path in ("/photos/a.jpg", "/photos/closed/b.jpg", "/photos/open/c.jpg"):
        store.pipe_file(path, b"x")
    files = {file.file_name: file.unreadable for file in FsspecTree(store, "/photos").files()}
    assert files == {"a.jpg": "", "closed": "the folder cannot be listed: Permission denied", "open/c.jpg": ""}
    with pytest.raises(FailedPrecondition) as caught:
        list(FsspecTree(store, "/photos/closed").files())
    assert caught.value.reason == "SOURCE_UNREACHABLE"


class Nested(MemoryFileSystem):
    """Creates a thousand nested folders with a file in the innermost one."""

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        deepest = path.count("/d") == 1000
        return [{"name": f"{path}/{'a.jpg' if deepest else 'd'}", "type": "file" if deepest else "directory"}]


def test_a_thousand_nested_folders_are_walked() -> None:
    (file,) = FsspecTree(Nested(), "/photos").files()
    assert file.unreadable.startswith("its name is longer")


def test_a_protocol_that_the_operator_allows_is_read(connection: Connection) -> None:
    connection.allow_list = AllowList((), ("memory",), ())
    MemoryFileSystem().pipe_file("/vans/deep/a.jpg", a_jpeg(1))
    tree = open_tree(Source(bucket=BucketSource(url="memory://vans")), "", connection.allow_list)
    (file,) = tree.files()
    assert (file.file_name, tree.read(file)) == ("deep/a.jpg", a_jpeg(1))


@pytest.mark.parametrize("protocol", ["file", "local", "gs", "nonsense"])
def test_an_unsupported_protocol_is_reported_at_the_start(protocol: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_protocols(("s3", "memory", protocol))
    assert caught.value.reason == "SOURCE_PROTOCOL_UNUSABLE"

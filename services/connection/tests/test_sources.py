"""The SourceService and MediaService: what is allowed, stored, hidden and rejected."""

import hashlib
import tracemalloc
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from connection_builders import DATASET, HOSTILE, PROJECT, Connection, a_jpeg, chunks, encoded
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.field_mask_pb2 import FieldMask
from PIL import Image
from vesta_common.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, VestaError
from vesta_connection.api import whole_file
from vesta_connection.sources.allow_list import AllowList, is_public
from vesta_contracts.connection.v1 import (
    BucketSource,
    CreateSourceRequest,
    DeleteSourceRequest,
    FolderSource,
    GetSourceRequest,
    GetSyncRequest,
    IngestMediaRequest,
    ListSourcesRequest,
    MediaFile,
    Source,
    UpdateSourceRequest,
    UploadItemRequest,
    UploadItemResponse,
)


def created(connection: Connection, source: Source, source_id: str = "") -> Source:
    source.dataset = source.dataset or DATASET
    return connection.sources.CreateSource(CreateSourceRequest(parent=PROJECT, source_id=source_id, source=source))


def uploaded(
    connection: Connection, source: Source, pieces: Sequence[bytes], request_id: str = ""
) -> UploadItemResponse:
    def messages() -> Iterator[UploadItemRequest]:
        yield UploadItemRequest(
            parent=source.name,
            file_name="van.jpg",
            file=HttpBody(data=pieces[0]),
            metadata={"camera": "dock-3"},
            request_id=request_id,
        )
        for piece in pieces[1:]:
            yield UploadItemRequest(parent=source.name, file=HttpBody(data=piece))

    return connection.sources.UploadItem(messages())


def test_a_source_requires_a_kind(connection: Connection) -> None:
    with pytest.raises(InvalidArgument) as caught:
        created(connection, Source())
    assert caught.value.reason == "SOURCE_KIND_MISSING"


def test_a_source_requires_an_existing_dataset(connection: Connection) -> None:
    with pytest.raises(NotFound) as caught:
        created(connection, Source(dataset=f"{PROJECT}/datasets/none", folder=FolderSource(path=str(connection.inbox))))
    assert caught.value.reason == "RESOURCE_NOT_FOUND"


def test_a_repeated_request_returns_the_first_source_after_folder_and_dataset_are_deleted(
    connection: Connection,
) -> None:
    source = Source(dataset=DATASET, folder=FolderSource(path=str(connection.inbox)))
    request = CreateSourceRequest(parent=PROJECT, source=source, request_id="once")
    made = connection.sources.CreateSource(request)
    connection.inbox.rmdir()
    connection.datasets.gone = True

    assert connection.sources.CreateSource(request) == made


def test_an_existing_name_is_rejected(connection: Connection) -> None:
    connection.an_upload_source("twice")
    with pytest.raises(AlreadyExists) as caught:
        connection.an_upload_source("twice")
    assert caught.value.reason == "RESOURCE_EXISTS"


@pytest.mark.parametrize("path", ["/", "/etc", "{inbox}/..", "{inbox}/../elsewhere", "{inbox}/none", "{inbox}/link"])
def test_a_folder_outside_the_roots_is_not_allowed(connection: Connection, path: str) -> None:
    (connection.inbox / ".." / "elsewhere").mkdir()
    (connection.inbox / "link").symlink_to("/etc")
    with pytest.raises(InvalidArgument) as caught:
        connection.a_folder_source(path=Path(path.format(inbox=connection.inbox)))
    assert caught.value.reason == "SOURCE_NOT_ALLOWED"


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("s3://photos", "http://127.0.0.1:9999"),
        ("s3://photos", "http://169.254.169.254/latest/meta-data"),
        ("s3://photos", "http://10.1.2.3"),
        ("s3://photos", "http://[::1]:80"),
        ("s3://photos", "ftp://example.org"),
        ("file:///etc", ""),
        ("s3://photos::file:///etc", ""),
        ("http://example.org/a.jpg", ""),
    ],
)
def test_a_bucket_on_an_internal_address_or_another_protocol_is_not_allowed(
    connection: Connection, url: str, endpoint: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        connection.a_bucket_source(BucketSource(url=url, endpoint_url=endpoint))
    assert caught.value.reason == "SOURCE_NOT_ALLOWED"


@pytest.mark.parametrize(
    "address",
    ["10.0.0.7", "224.0.0.1", "64:ff9b::a00:7", "64:ff9b:1::a00:7", "2002:a00:7::1", "::ffff:10.0.0.7", "fe80::1", "ff02::1",
     "0.0.0.0", "::", "::10.0.0.7", "::ffff:169.254.169.254", "169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192",
     "168.63.129.16", "127.0.0.1", "::1"],
)  # fmt: skip
def test_internal_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_internet_addresses_are_public(address: str) -> None:
    assert is_public(address)


def test_a_key_without_its_secret_is_rejected(connection: Connection) -> None:
    endpoint = f"http://{connection.allow_list.inner_hosts[0]}"
    with pytest.raises(InvalidArgument) as caught:
        connection.a_bucket_source(BucketSource(url="s3://photos", endpoint_url=endpoint, access_key_id="key"))
    assert caught.value.reason == "SOURCE_SECRET_MISSING"


def test_allowing_web_addresses_does_not_allow_internal_ones() -> None:
    allow_list = AllowList((), ("https",), ())
    with pytest.raises(InvalidArgument) as caught:
        allow_list.check_url("https://metadata.example/key", "", resolve=lambda _: ["93.184.216.34", "10.0.0.7"])
    assert caught.value.reason == "SOURCE_NOT_ALLOWED"


def test_a_host_on_a_public_address_is_allowed() -> None:
    AllowList((), ("s3",), ()).check_url("s3://photos", "https://s3.example.org", resolve=lambda _: ["93.184.216.34"])


def test_a_host_without_an_address_is_unreachable(connection: Connection) -> None:
    with pytest.raises(InvalidArgument) as caught:
        connection.a_bucket_source(BucketSource(url="s3://photos", endpoint_url="http://nowhere.invalid"))
    assert caught.value.reason == "SOURCE_UNREACHABLE"


def a_bucket(connection: Connection) -> Source:
    endpoint = f"http://{connection.allow_list.inner_hosts[0]}"
    bucket = BucketSource(url="s3://photos", endpoint_url=endpoint, access_key_id="key", secret_access_key="hush")
    return connection.a_bucket_source(bucket)


def test_a_secret_is_never_returned(connection: Connection) -> None:
    made = a_bucket(connection)
    got = connection.sources.GetSource(GetSourceRequest(name=made.name))
    (listed,) = connection.sources.ListSources(ListSourcesRequest(parent=PROJECT)).sources
    updated = connection.sources.UpdateSource(
        UpdateSourceRequest(
            source=Source(name=made.name, bucket=BucketSource(secret_access_key="hush2")),
            update_mask=FieldMask(paths=["bucket.secret_access_key"]),
        )
    )

    assert b"hush" not in b"".join(found.SerializeToString() for found in (made, got, listed, updated))


def test_an_update_without_a_secret_keeps_the_stored_one(connection: Connection) -> None:
    made = a_bucket(connection)
    connection.sources.UpdateSource(
        UpdateSourceRequest(
            source=Source(name=made.name, etag=made.etag, display_name="Dock", bucket=BucketSource(access_key_id="k2")),
            update_mask=FieldMask(paths=["display_name", "bucket.access_key_id"]),
        )
    )

    source, secret = connection.store.get_source_with_secret(made.name)
    assert (source.display_name, source.bucket.access_key_id, secret) == ("Dock", "k2", "hush")


def test_an_update_with_a_stale_etag_is_aborted(connection: Connection) -> None:
    made = connection.an_upload_source()
    with pytest.raises(Aborted) as caught:
        connection.sources.UpdateSource(
            UpdateSourceRequest(
                source=Source(name=made.name, etag="0" * 16, display_name="Dock"),
                update_mask=FieldMask(paths=["display_name"]),
            )
        )
    assert caught.value.reason == "ETAG_STALE"


def test_a_deleted_source_is_not_found(connection: Connection) -> None:
    made = connection.an_upload_source()
    connection.sources.DeleteSource(DeleteSourceRequest(name=made.name))
    with pytest.raises(NotFound) as caught:
        connection.sources.GetSource(GetSourceRequest(name=made.name))
    assert caught.value.reason == "RESOURCE_NOT_FOUND"


def test_an_unknown_sync_is_not_found(connection: Connection) -> None:
    with pytest.raises(NotFound) as caught:
        connection.syncs.GetSync(GetSyncRequest(name=f"{PROJECT}/sources/none/syncs/none"))
    assert caught.value.reason == "RESOURCE_NOT_FOUND"


def test_sources_are_listed_by_name_in_pages(connection: Connection) -> None:
    for name in ("b", "c", "a"):
        connection.an_upload_source(name)
    first = connection.sources.ListSources(ListSourcesRequest(parent=PROJECT, page_size=2))
    second = connection.sources.ListSources(
        ListSourcesRequest(parent=PROJECT, page_size=2, page_token=first.next_page_token)
    )

    assert [source.name[-1] for source in (*first.sources, *second.sources)] == ["a", "b", "c"]


def test_an_upload_in_chunks_keeps_its_metadata(connection: Connection) -> None:
    answer = uploaded(connection, connection.an_upload_source(), chunks(a_jpeg(1), 300))

    (new,) = connection.datasets.added
    assert (new.metadata["camera"], new.media.provenance.file_name) == ("dock-3", "van.jpg")
    assert (answer.item, answer.already_existed) == (connection.datasets.items[new.media.sha256], False)


@pytest.mark.parametrize("ends", [[], [50_000], [10, 20, 100_000], [0, 40_000, 40_000, 40_010]])
def test_a_large_file_arrives_unchanged_in_messages_of_any_size(connection: Connection, ends: list[int]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    jpeg = encoded(Image.fromarray(noise))
    assert len(jpeg) > 100_020
    pieces = [jpeg[start:end] for start, end in pairwise([0, *ends, len(jpeg)])]
    uploaded(connection, connection.an_upload_source(), pieces)

    (new,) = connection.datasets.added
    assert new.media.provenance.original_sha256 == hashlib.sha256(jpeg).hexdigest()


def test_uploading_the_same_image_again_reports_that_it_exists(connection: Connection) -> None:
    source = connection.an_upload_source()
    first, second = uploaded(connection, source, [a_jpeg(1)]), uploaded(connection, source, [a_jpeg(1)])

    assert (second.item, second.already_existed) == (first.item, True)


def test_a_repeated_upload_returns_the_first_response_after_source_and_dataset_are_deleted(
    connection: Connection,
) -> None:
    source = connection.an_upload_source()
    first = uploaded(connection, source, [a_jpeg(1)], request_id="once")
    connection.sources.DeleteSource(DeleteSourceRequest(name=source.name))
    connection.datasets.gone = True

    assert uploaded(connection, source, chunks(a_jpeg(1), 100), request_id="once") == first


@pytest.mark.parametrize("name", HOSTILE)
def test_a_malicious_upload_is_rejected_with_its_reason(connection: Connection, name: str) -> None:
    data, reason = HOSTILE[name]
    with pytest.raises(InvalidArgument) as caught:
        uploaded(connection, connection.an_upload_source(), [data])
    assert (caught.value.reason, caught.value.violations[0].field) == (reason, "file")


def test_an_upload_above_the_limit_is_rejected_before_it_is_complete(connection: Connection) -> None:
    sent = 0
    source = connection.an_upload_source()

    def endless() -> Iterator[UploadItemRequest]:
        nonlocal sent
        while sent < 200:
            sent += 1
            yield UploadItemRequest(parent=source.name, file=HttpBody(data=b"\xff\xd8\xff" + bytes(1 << 20)))

    with pytest.raises(InvalidArgument) as caught:
        connection.sources.UploadItem(endless())
    assert (caught.value.reason, sent < 200) == ("IMAGE_TOO_LARGE", True)


def test_an_upload_through_another_kind_of_source_is_rejected(connection: Connection) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        uploaded(connection, connection.a_folder_source(), [a_jpeg(1)])
    assert caught.value.reason == "SOURCE_NOT_UPLOAD"


def test_an_upload_without_messages_is_rejected_with_an_error(connection: Connection) -> None:
    with pytest.raises(VestaError) as caught:
        connection.sources.UploadItem(iter(()))
    assert caught.value.reason == "RESOURCE_NOT_FOUND"


def test_media_of_other_services_are_ingested_one_by_one(connection: Connection) -> None:
    files = [MediaFile(file_name="a.jpg", data=a_jpeg(1)), MediaFile(file_name="b.jpg"), MediaFile(data=a_jpeg(1))]

    taken = connection.media.IngestMedia(IngestMediaRequest(parent=PROJECT, files=files)).results

    assert [entry.reason for entry in taken] == ["", "IMAGE_EMPTY", ""]
    assert taken[0].media.sha256 == taken[2].media.sha256


def test_many_small_parts_of_an_upload_take_no_more_memory_than_the_file() -> None:
    count, part_bytes = 200_000, 10
    tracemalloc.start()
    data = whole_file(b"x" * part_bytes, (bytes(part_bytes) for _ in range(count - 1)))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data) == count * part_bytes
    assert peak_bytes < 2.5 * len(data)

"""Objects on the real store: kept once, checked when read, and refused or missing with a reason."""

import hashlib
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from vesta_common.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from vesta_common.settings import ServiceSettings
from vesta_common.storage.multipart import PART_BYTES
from vesta_common.storage.objects import ObjectStore, hash_in
from vesta_local.testing_tls import an_authority


@pytest.fixture
def store(objects_settings: dict[str, Any]) -> Iterator[ObjectStore]:
    store = a_store(objects_settings)
    store.ensure_bucket()
    yield store
    store.close()


def a_store(objects_settings: dict[str, Any], **changes: Any) -> ObjectStore:
    return ObjectStore.of(ServiceSettings(postgres_url="postgresql://unused", **{**objects_settings, **changes}))


class NothingHere(BaseHTTPRequestHandler):
    """Answers that there is no such object."""

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def tls_door(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A TLS endpoint under an authority of its own: its URL, and the authority's file."""
    authority = an_authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("server"))
    with ThreadingHTTPServer(("127.0.0.1", 0), NothingHere) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}", Path(authority.ca_file)
        server.shutdown()


def test_content_is_stored_once_under_its_hash(store: ObjectStore) -> None:
    first, second = store.put("media", b"a picture"), store.put("media", b"a picture")
    assert first == second
    assert first.key == f"media/{hashlib.sha256(b'a picture').hexdigest()}"
    assert store.get(first.key) == b"a picture"
    assert list(store.list_keys("media/")) == [first.key]


def test_storing_again_never_replaces_what_is_there(store: ObjectStore) -> None:
    ref = store.put("media", b"a picture")
    store.put_named(ref.key, b"changed by somebody else")
    store.put("media", b"a picture")
    with pytest.raises(DataLoss) as lost:
        store.get(ref.key)
    assert lost.value.reason == "OBJECT_CORRUPT"


def test_a_race_for_one_object_leaves_it_whole(store: ObjectStore) -> None:
    start = threading.Barrier(4)

    def put(_: int) -> str:
        start.wait()
        return store.put("media", b"the same picture" * 1000).key

    with ThreadPoolExecutor(4) as threads:
        keys = set(threads.map(put, range(4)))
    assert store.get(keys.pop()) == b"the same picture" * 1000
    assert not keys


def test_changed_content_is_data_loss_however_it_is_read(store: ObjectStore, tmp_path: Path) -> None:
    ref = store.put("media", b"a picture")
    store.put_named(ref.key, b"another")
    with pytest.raises(DataLoss):
        list(store.stream(ref.key))
    with pytest.raises(DataLoss):
        store.download(ref.key, tmp_path / "picture")
    assert list(tmp_path.iterdir()) == []
    store.put_named("named", b"another")
    with pytest.raises(DataLoss):
        store.get("named", sha256=ref.sha256)


def test_what_bears_the_hash_of_another_object_is_read_unchecked(store: ObjectStore) -> None:
    key = f"thumbnails/{store.put('media', b'a picture').sha256}"
    store.put_named(key, b"a small picture")
    assert store.get(key, checked=False) == b"a small picture"


def test_keys_are_listed_by_age(store: ObjectStore) -> None:
    key, now = store.put("media", b"a picture").key, datetime.now(UTC)
    assert list(store.list_keys("media/", before=now + timedelta(hours=1))) == [key]
    assert list(store.list_keys("media/", before=now - timedelta(hours=1))) == []


def test_large_files_are_streamed_in_parts(store: ObjectStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * (2 * PART_BYTES // 256) + b"the end")
    ref = store.put("models", source)
    assert store.put("models", source) == ref
    assert ref.size_bytes == 2 * PART_BYTES + 7
    store.download(ref.key, target)
    assert target.read_bytes() == source.read_bytes()
    assert sum(map(len, store.stream(ref.key))) == ref.size_bytes
    assert store.find_size_bytes(ref.key) == ref.size_bytes


@pytest.mark.parametrize("size_bytes", [0, 1, PART_BYTES, PART_BYTES + 1])
def test_streams_of_any_length_are_stored(store: ObjectStore, size_bytes: int) -> None:
    ref = store.put_stream("archives/export", iter([b"x" * size_bytes]), PART_BYTES * 2)
    assert ref.size_bytes == size_bytes
    assert store.get("archives/export", sha256=ref.sha256) == b"x" * size_bytes


def test_nothing_is_left_of_a_stream_that_is_too_long(store: ObjectStore) -> None:
    with pytest.raises(InvalidArgument) as refused:
        store.put_stream("archives/export", (bytes(PART_BYTES) for _ in range(4)), 3 * PART_BYTES)
    assert refused.value.reason == "OBJECT_TOO_LARGE"
    assert not store.exists("archives/export")


def test_what_is_missing_says_so(store: ObjectStore, tmp_path: Path) -> None:
    assert not store.exists("media/nothing")
    assert store.find_size_bytes("media/nothing") is None
    for read in (lambda: store.get("media/nothing"), lambda: list(store.stream("media/nothing"))):
        with pytest.raises(NotFound) as missing:
            read()
        assert missing.value.reason == "OBJECT_NOT_FOUND"
    store.delete("media/nothing")


def test_too_large_an_object_is_not_read_into_memory(store: ObjectStore) -> None:
    ref = store.put("media", bytes(1000))
    with pytest.raises(InvalidArgument) as refused:
        store.get(ref.key, size_bytes_max=999)
    assert refused.value.reason == "OBJECT_TOO_LARGE"


def test_keys_are_listed_without_the_prefix_and_deleted(store: ObjectStore) -> None:
    for name in ("b", "a", "c"):
        store.put_named(f"list/{name}", b"x")
    assert list(store.list_keys("list/")) == ["list/a", "list/b", "list/c"]
    store.delete("list/b")
    assert list(store.list_keys("list/")) == ["list/a", "list/c"]


@pytest.mark.parametrize("key", ["", "media/"])
def test_keys_without_a_name_are_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        store.put_named(key, b"x")
    assert refused.value.reason == "OBJECT_KEY_INVALID"


def test_a_wrong_key_and_a_store_that_is_away_are_told_apart(objects_settings: dict[str, Any]) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        a_store(objects_settings, s3_secret_key="wrong").get("media/x")
    assert refused.value.reason == "OBJECT_STORE_ACCESS_DENIED"
    with pytest.raises(Unavailable) as away:
        a_store(objects_settings, s3_endpoint_url="http://127.0.0.1:9").get("media/x")
    assert away.value.reason == "OBJECT_STORE_UNAVAILABLE"


def test_a_hash_is_found_in_a_key_with_or_without_suffix() -> None:
    digest = "0" * 63 + "f"
    assert hash_in(f"models/{digest}.onnx") == hash_in(f"media/{digest}") == digest
    assert hash_in("triton/model/1/model.onnx") == hash_in(f"media/{digest[:-1]}") == hash_in(f"x/{'G' * 64}") == ""


def test_a_certificate_is_accepted_by_the_authority_in_the_file_alone(
    objects_settings: dict[str, Any], tls_door: tuple[str, Path]
) -> None:
    url, authority = tls_door
    store = a_store(objects_settings, s3_endpoint_url=url, s3_ca_file=str(authority))
    assert not store.exists("nothing")
    with pytest.raises(Unavailable, match="certificate"):
        a_store(objects_settings, s3_endpoint_url=url).exists("nothing")

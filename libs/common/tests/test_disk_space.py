"""Writing to the object store is refused while its disk is nearly full, with the cause; reading goes on."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import Config
from vesta_common.disk_space import DiskSpace, disk_space
from vesta_common.errors import ResourceExhausted, is_transient
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.storage_guard import StorageGuard

SIZE_BYTES = 10_000


class Disk:
    """A file system whose free space a test sets."""

    def __init__(self, path: Path) -> None:
        self.free_bytes = SIZE_BYTES
        self.guard = StorageGuard(path, lambda _: DiskSpace(self.free_bytes, SIZE_BYTES))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def a_store(settings: dict[str, Any], guard: StorageGuard | None = None) -> ObjectStore:
    client = boto3.client(
        "s3",
        endpoint_url=settings["s3_endpoint_url"],
        region_name="us-east-1",
        aws_access_key_id=settings["s3_access_key"],
        aws_secret_access_key=settings["s3_secret_key"],
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )
    return ObjectStore(client, settings["s3_bucket"], settings["s3_prefix"], guard)


@pytest.mark.parametrize(
    ("free_bytes", "is_low", "is_full"),
    [
        (SIZE_BYTES, False, False),
        (1000, False, False),
        (999, True, False),
        (200, True, False),
        (199, True, True),
        (0, True, True),
    ],
)
def test_below_a_tenth_a_disk_is_low_and_below_a_fiftieth_full(free_bytes: int, is_low: bool, is_full: bool) -> None:
    space = DiskSpace(free_bytes, SIZE_BYTES)
    assert (space.is_low, space.is_full) == (is_low, is_full)


def test_a_disk_without_size_is_full() -> None:
    assert DiskSpace(0, 0).is_full


def test_a_real_disk_has_no_more_free_than_there_is(tmp_path: Path) -> None:
    space = disk_space(tmp_path)
    assert 0 <= space.free_bytes <= space.size_bytes


def test_a_store_whose_disk_nobody_can_measure_is_written_to() -> None:
    StorageGuard(None).check()


def test_a_full_disk_takes_nothing_in_lets_everything_be_read_and_takes_in_again(
    objects_settings: dict[str, Any], disk: Disk, tmp_path: Path
) -> None:
    store = a_store(objects_settings, disk.guard)
    kept = store.put("media", b"a picture")
    file = tmp_path / "file"
    file.write_bytes(b"another")
    disk.free_bytes = 150
    for write in (
        lambda: store.put("media", b"one more"),
        lambda: store.put("media", file),
        lambda: store.put_named("media/named", b"one more"),
        lambda: store.put_named("media/named", file),
        lambda: store.put_stream("media/stream", [b"one more"], 100),
    ):
        with pytest.raises(ResourceExhausted) as refused:
            write()
        assert refused.value.reason == "STORAGE_FULL"
        assert "1.5%" in refused.value.message
        assert refused.value.retry_after
        assert is_transient(refused.value)
    assert store.get(kept.key) == b"a picture"
    assert list(store.list_keys("media/")) == [kept.key]
    disk.free_bytes = 200
    assert store.get(store.put("media", b"one more").key) == b"one more"
    disk.free_bytes = 0
    store.delete(kept.key)
    assert not store.exists(kept.key)


class Full(BaseHTTPRequestHandler):
    """A store elsewhere that has no free disk space."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        status, code = (507, "InsufficientStorage") if "elsewhere" in self.path else (403, "QuotaExceeded")
        self.send_response(status)
        self.end_headers()
        self.wfile.write(f"<Error><Code>{code}</Code><Message>full</Message></Error>".encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def full_store(objects_settings: dict[str, Any]) -> Iterator[ObjectStore]:
    with HTTPServer(("127.0.0.1", 0), Full) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield a_store({**objects_settings, "s3_endpoint_url": f"http://127.0.0.1:{server.server_port}"})
        server.shutdown()


@pytest.mark.parametrize("key", ["media/elsewhere", "media/quota"])
def test_what_a_full_store_elsewhere_says_is_told_in_our_words(full_store: ObjectStore, key: str) -> None:
    with pytest.raises(ResourceExhausted) as refused:
        full_store.put_named(key, b"one more")
    assert refused.value.reason == "STORAGE_FULL"

"""What a Sync adds, what it rejects, and what it does not read again."""

import hashlib
import io
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from connection_builders import HOSTILE, Connection, a_jpeg, a_picture, counts, encoded, reasons
from PIL import Image
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.packs import get_packed
from vesta_connection.ingest import UNREACHABLE, UNREADABLE, RejectedFile
from vesta_connection.settings import Settings
from vesta_connection.sources.listing import FsspecTree, SourceFile
from vesta_connection.syncs.worker import read_or_reject
from vesta_contracts.connection.v1 import Sync


def test_a_folder_is_ingested_with_its_subfolders_and_provenance(connection: Connection) -> None:
    connection.write(1, 2)
    (connection.inbox / "deep" / "er").mkdir(parents=True)
    (connection.inbox / "deep" / "er" / "photo").write_bytes(a_jpeg(3))
    (connection.inbox / "notes.txt").write_text("no image")
    source = connection.a_folder_source()

    sync = connection.synced(source)

    assert (sync.state, counts(sync)) == (Sync.SUCCEEDED, {"found": 3, "added": 3})
    provenance = {new.media.provenance.file_name: new.media.provenance.source for new in connection.datasets.added}
    assert provenance == {"001.jpg": source.name, "002.jpg": source.name, "deep/er/photo": source.name}


def test_a_second_sync_reads_only_new_and_changed_files(connection: Connection) -> None:
    connection.write(1, 2, 3)
    source = connection.a_folder_source()
    connection.synced(source)
    connection.write(4)
    (connection.inbox / "001.jpg").write_bytes(a_jpeg(11))

    assert counts(connection.synced(source)) == {"found": 4, "added": 2, "unchanged": 2}


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_detected(connection: Connection) -> None:
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


def test_malicious_files_are_rejected_with_their_reasons_and_the_others_are_ingested(connection: Connection) -> None:
    for name, (data, _) in HOSTILE.items():
        (connection.inbox / name).write_bytes(data)
    connection.write(1, 2)

    sync = connection.synced(connection.a_folder_source())

    assert reasons(sync) == {name: reason for name, (_, reason) in HOSTILE.items()}
    assert (sync.state, sync.added_count, sync.rejected_count) == (Sync.SUCCEEDED, 2, len(HOSTILE))


def test_a_rejected_file_is_not_read_again_until_it_changes(connection: Connection) -> None:
    broken = connection.inbox / "broken.jpg"
    broken.write_bytes(a_jpeg(1)[:-200])
    source = connection.a_folder_source()
    first, second = connection.synced(source), connection.synced(source)
    broken.write_bytes(a_jpeg(1))

    assert (counts(first)["rejected"], counts(second)) == (1, {"found": 1, "unchanged": 1})
    assert counts(connection.synced(source)) == {"found": 1, "added": 1}


def test_only_files_that_cannot_be_named_or_listed_are_rejected(connection: Connection) -> None:
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
    assert (sync.state, counts(sync)) == (Sync.SUCCEEDED, {"found": 3, "added": 1, "rejected": 2})


def test_the_provenance_of_a_file_has_its_path_and_time(connection: Connection, settings: Settings) -> None:
    came = encoded(a_picture(1), "BMP")  # stored as a JPEG
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
    thumbnail = get_packed(ObjectStore.of(settings), new.media.thumbnail_key)
    assert max(Image.open(io.BytesIO(thumbnail)).size) <= 256


def test_the_thumbnails_of_a_batch_are_one_object(connection: Connection, settings: Settings) -> None:
    objects, sides_px = ObjectStore.of(settings), (40, 300, 400)
    for side_px in sides_px:
        (connection.inbox / f"{side_px}.jpg").write_bytes(encoded(a_picture(side_px, side_px, side_px), "JPEG"))
    connection.synced(connection.a_folder_source())
    media = {new.media.width_px: new.media for new in connection.datasets.added}
    assert sorted(media) == [*sides_px]
    assert media[40].thumbnail_key == media[40].object_key, "it is its own thumbnail"
    for side_px in (300, 400):
        thumbnail = Image.open(io.BytesIO(get_packed(objects, media[side_px].thumbnail_key))).convert("RGB")
        whole = Image.open(io.BytesIO(objects.get(media[side_px].object_key))).convert("RGB").resize(thumbnail.size)
        assert thumbnail.size == (256, 256)
        assert np.abs(np.asarray(thumbnail, np.int16) - np.asarray(whole, np.int16)).mean() < 3
    assert len(list(objects.list_keys("thumbnails/"))) == 1


def test_links_and_pipes_are_not_followed(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(a_jpeg(7))
    (connection.inbox / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (connection.inbox / "outside").symlink_to(tmp_path)
    os.mkfifo(connection.inbox / "pipe.jpg")
    connection.write(1)

    sync = connection.synced(connection.a_folder_source())

    assert reasons(sync) == {"link.jpg": "FILE_UNREADABLE", "outside": "FILE_UNREADABLE"}
    assert (sync.state, sync.added_count) == (Sync.SUCCEEDED, 1)


def test_one_image_in_two_files_is_one_item(connection: Connection) -> None:
    (connection.inbox / "a.jpg").write_bytes(a_jpeg(1))
    (connection.inbox / "b.jpg").write_bytes(a_jpeg(1))

    assert counts(connection.synced(connection.a_folder_source())) == {"found": 2, "added": 1, "duplicate": 1}


def test_an_unreadable_file_is_read_again_by_the_next_sync(connection: Connection, tmp_path: Path) -> None:
    connection.write(1)
    (tmp_path / "elsewhere.jpg").write_bytes(a_jpeg(2))
    (connection.inbox / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    source = connection.a_folder_source()
    first, second = connection.synced(source), connection.synced(source)
    assert (counts(first), counts(second)) == (
        {"found": 2, "added": 1, "rejected": 1},
        {"found": 2, "unchanged": 1, "rejected": 1},
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError("gone"), UNREADABLE),
        (PermissionError("closed"), UNREADABLE),
        (OSError("denied"), UNREACHABLE),
    ],
)
def test_objects_that_cannot_be_read_are_rejected_without_affecting_others(error: OSError, reason: str) -> None:
    class Tree(FsspecTree):
        def read(self, file: SourceFile) -> bytes:
            raise error

    refused = read_or_reject(Tree(None, "photos"), SourceFile("a.jpg", "1", "photos/a.jpg", 1))
    assert isinstance(refused, RejectedFile)
    assert refused.reason == reason

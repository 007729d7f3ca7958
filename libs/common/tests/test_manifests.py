"""Manifests are read part by part, from an index or from a single file, and a damaged one is reported with its key."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vesta_common.errors import DataLoss
from vesta_common.manifests import BATCH_ROWS, FORMAT, Manifest, Part, read_manifest, read_rows
from vesta_common.settings import ServiceSettings
from vesta_common.storage.objects import ObjectStore

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def objects(objects_settings: dict[str, Any]) -> Iterator[ObjectStore]:
    store = ObjectStore.of(ServiceSettings(postgres_url="postgresql://unused", **objects_settings))
    yield store
    store.close()


def a_file(folder: Path, names: list[str]) -> Path:
    """Writes a Parquet file with one row per name."""
    table = pa.table({"name": names, "labels": [[name, "van"] for name in names]})
    pq.write_table(
        table.replace_schema_metadata({"format": "vesta.snapshot.manifest.v1", "digest": "d1"}), folder / "rows"
    )
    return folder / "rows"


def in_parts(objects: ObjectStore, folder: Path) -> str:
    """Stores a manifest of two parts, and returns its key."""
    parts = []
    for names in (NAMES[:1], NAMES[1:]):
        key = objects.put("manifests", a_file(folder, names)).key
        parts.append(Part(key, "d2", names[0], names[-1], len(names), {"reviewed_count": 1}))
    return objects.put("manifests", Manifest("d1", tuple(parts)).to_json()).key


def in_one_file(objects: ObjectStore, folder: Path) -> str:
    """Stores a manifest as earlier versions did, and returns its key."""
    return objects.put("manifests", a_file(folder, NAMES)).key


@pytest.mark.parametrize(("store", "part_count"), [(in_parts, 2), (in_one_file, 1)])
def test_both_formats_have_the_same_rows(
    objects: ObjectStore, tmp_path: Path, store: Callable[[ObjectStore, Path], str], part_count: int
) -> None:
    manifest = read_manifest(objects, store(objects, tmp_path))
    assert (manifest.digest, len(manifest.parts)) == ("d1", part_count)
    assert sum(part.item_count for part in manifest.parts) == len(NAMES)
    batches = list(read_rows(objects, manifest.parts, ["labels", "name"]))
    assert [list(batch) for batch in batches] == [["labels", "name"]] * part_count
    assert [name for batch in batches for name in batch["name"]] == NAMES
    assert [labels for batch in batches for labels in batch["labels"]] == [[name, "van"] for name in NAMES]


def test_an_index_is_read_as_it_was_written(objects: ObjectStore, tmp_path: Path) -> None:
    key = in_parts(objects, tmp_path)
    assert read_manifest(objects, key).to_json() == objects.get(key)


def test_a_large_file_is_read_in_batches(objects: ObjectStore, tmp_path: Path) -> None:
    key = objects.put("manifests", a_file(tmp_path, [f"{number:05}" for number in range(2 * BATCH_ROWS + 1)])).key
    rows = read_rows(objects, read_manifest(objects, key).parts, ["name"])
    assert [len(batch["name"]) for batch in rows] == [BATCH_ROWS, BATCH_ROWS, 1]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"PAR1", b"not parquet at all", b"[]", b'{"format": "another"}'),
        json.dumps({"format": FORMAT, "digest": "", "parts": [{"key": "x"}]}).encode(),
    ],
)
def test_an_object_that_is_no_manifest_is_refused_by_name(objects: ObjectStore, content: bytes) -> None:
    key = objects.put("manifests", content).key
    with pytest.raises(DataLoss, match=f"{key} of a snapshot is not a manifest") as refused:
        read_manifest(objects, key)
    assert refused.value.reason == "MANIFEST_UNREADABLE"


@pytest.mark.parametrize("content", [b"", b"PAR1 but no more"])
def test_a_part_that_is_no_parquet_file_is_refused_by_name(objects: ObjectStore, content: bytes) -> None:
    key = objects.put("manifests", content).key
    with pytest.raises(DataLoss, match=f"{key} of a snapshot cannot be read") as refused:
        list(read_rows(objects, [Part(key, "", "a", "a", 1)], ["name"]))
    assert refused.value.reason == "MANIFEST_UNREADABLE"


def test_a_part_without_a_column_is_refused_by_name(objects: ObjectStore, tmp_path: Path) -> None:
    key = in_one_file(objects, tmp_path)
    with pytest.raises(DataLoss, match=f"{key} of a snapshot cannot be read"):
        list(read_rows(objects, read_manifest(objects, key).parts, ["name", "sha256"]))


def test_a_missing_object_is_named(objects: ObjectStore, tmp_path: Path) -> None:
    manifest = read_manifest(objects, in_parts(objects, tmp_path))
    lost = manifest.parts[1].key
    objects.delete(lost)
    with pytest.raises(DataLoss, match=f"{lost} of a snapshot is missing") as refused:
        list(read_rows(objects, manifest.parts, ["name"]))
    assert refused.value.reason == "MANIFEST_UNREADABLE"
    with pytest.raises(DataLoss, match="manifests/none of a snapshot is missing"):
        read_manifest(objects, "manifests/none")


def test_a_changed_object_is_refused(objects: ObjectStore, tmp_path: Path) -> None:
    manifest = read_manifest(objects, in_parts(objects, tmp_path))
    objects.put_named(manifest.parts[0].key, a_file(tmp_path, ["other"]))
    with pytest.raises(DataLoss) as refused:
        list(read_rows(objects, manifest.parts, ["name"]))
    assert refused.value.reason == "OBJECT_CORRUPT"

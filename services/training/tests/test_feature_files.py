"""Feature packs in a real object store are found by other machines, and can be lost at any time."""

import hashlib
import io
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vesta_common.storage.objects import ObjectStore
from vesta_training.example import Array
from vesta_training.features.feature_files import FeatureFiles
from vesta_training.settings import Settings

SPACE = "5" * 64
DATASET = "projects/acme/datasets/digits"
FOLDER = f"features/{SPACE}/acme/digits"
EMBEDDINGS = {f"{number:064x}": np.full(4, number, dtype=np.float32) for number in range(6)}


@pytest.fixture
def objects(service_settings: Callable[[str], dict[str, Any]]) -> Iterator[ObjectStore]:
    store = ObjectStore.of(
        Settings(
            **service_settings("training"),
            datasets_address="127.0.0.1:1",
            serving_address="127.0.0.1:1",
            work_folder="/",
        )
    )
    yield store
    store.close()


def packs(objects: ObjectStore) -> list[str]:
    return list(objects.list_keys(f"features/{SPACE}/"))


def same(found: Any, expected: dict[str, Array]) -> bool:
    return found.keys() == expected.keys() and all((found[image] == expected[image]).all() for image in expected)


def test_embeddings_of_another_machine_are_found_without_local_copies(objects: ObjectStore, tmp_path: Path) -> None:
    FeatureFiles(objects, DATASET, tmp_path / "one").put_many(SPACE, EMBEDDINGS)
    assert same(FeatureFiles(objects, DATASET, tmp_path / "two").get_many(SPACE, list(EMBEDDINGS)), EMBEDDINGS)


def test_a_pack_is_named_by_the_hash_of_its_content(objects: ObjectStore, tmp_path: Path) -> None:
    FeatureFiles(objects, DATASET, tmp_path).put_many(SPACE, EMBEDDINGS)
    (key,) = packs(objects)
    assert hashlib.sha256(objects.get(key)).hexdigest() == key.rpartition("/")[2]


def test_packs_of_earlier_versions_are_still_read(objects: ObjectStore, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, images=np.array(sorted(EMBEDDINGS)), embeddings=np.stack(list(EMBEDDINGS.values())))
    name = hashlib.sha256("\n".join(sorted(EMBEDDINGS)).encode()).hexdigest()
    objects.put_named(f"features/{SPACE}/{name}.npz", buffer.getvalue())
    assert same(FeatureFiles(objects, DATASET, tmp_path).get_many(SPACE, list(EMBEDDINGS)), EMBEDDINGS)


@pytest.mark.parametrize("name", ["7" * 64, "7" * 64 + ".npz"])
@pytest.mark.parametrize("content", [b"", b"no pack at all", b"PK\x03\x04" + bytes(200)])
def test_an_unreadable_pack_is_deleted_and_the_others_are_used(
    objects: ObjectStore, tmp_path: Path, name: str, content: bytes
) -> None:
    FeatureFiles(objects, DATASET, tmp_path / "one").put_many(SPACE, EMBEDDINGS)
    (good,) = packs(objects)
    objects.put_named(f"{FOLDER}/{name}", content)
    assert same(FeatureFiles(objects, DATASET, tmp_path / "two").get_many(SPACE, list(EMBEDDINGS)), EMBEDDINGS)
    assert packs(objects) == [good]


def test_a_damaged_pack_is_written_again_under_its_name(objects: ObjectStore, tmp_path: Path) -> None:
    FeatureFiles(objects, DATASET, tmp_path / "one").put_many(SPACE, EMBEDDINGS)
    (key,) = packs(objects)
    whole = objects.get(key)
    objects.put_named(key, whole[:-100] + bytes(100))
    features = FeatureFiles(objects, DATASET, tmp_path / "two")
    assert features.get_many(SPACE, list(EMBEDDINGS)) == {}
    features.put_many(SPACE, EMBEDDINGS)
    assert objects.get(key) == whole


@pytest.mark.parametrize("content", [b"", b"cut off", bytes(1500)])
def test_a_damaged_copy_is_replaced_and_the_pack_is_kept(objects: ObjectStore, tmp_path: Path, content: bytes) -> None:
    FeatureFiles(objects, DATASET, tmp_path).put_many(SPACE, EMBEDDINGS)
    (key,) = packs(objects)
    (tmp_path / key).write_bytes(content)
    assert same(FeatureFiles(objects, DATASET, tmp_path).get_many(SPACE, list(EMBEDDINGS)), EMBEDDINGS)
    assert (tmp_path / key).read_bytes() == objects.get(key)


def test_an_unwritable_folder_only_costs_time(objects: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    features = FeatureFiles(objects, DATASET, tmp_path / "file")
    features.put_many(SPACE, EMBEDDINGS)
    assert same(FeatureFiles(objects, DATASET, tmp_path / "file").get_many(SPACE, list(EMBEDDINGS)), EMBEDDINGS)


def test_packs_that_others_add_concurrently_are_found(objects: ObjectStore, tmp_path: Path) -> None:
    first, second = FeatureFiles(objects, DATASET, tmp_path / "one"), FeatureFiles(objects, DATASET, tmp_path / "two")
    assert first.get_many(SPACE, list(EMBEDDINGS)) == {}
    second.put_many(SPACE, EMBEDDINGS)
    assert same(first.get_many(SPACE, list(EMBEDDINGS)), EMBEDDINGS)


def test_the_packs_of_other_datasets_are_not_read(objects: ObjectStore, tmp_path: Path) -> None:
    FeatureFiles(objects, DATASET, tmp_path / "one").put_many(SPACE, EMBEDDINGS)
    others = {f"{number:064x}": np.ones(4, dtype=np.float32) for number in range(100, 110)}
    for other in ("projects/acme/datasets/vans", "projects/globex/datasets/digits"):
        FeatureFiles(objects, other, tmp_path / "one").put_many(SPACE, others)
    folder = tmp_path / "two"
    found = FeatureFiles(objects, DATASET, folder).get_many(SPACE, [*EMBEDDINGS, *others])
    assert same(found, EMBEDDINGS)
    assert [path.parent for path in folder.rglob("*") if path.is_file()] == [folder / FOLDER]


def test_only_the_wanted_embeddings_are_kept_in_memory(objects: ObjectStore, tmp_path: Path) -> None:
    many = {f"{number:064x}": np.full(1000, number, dtype=np.float32) for number in range(2000)}
    FeatureFiles(objects, DATASET, tmp_path).put_many(SPACE, many)
    features = FeatureFiles(objects, DATASET, tmp_path)
    tracemalloc.start()
    found = features.get_many(SPACE, list(many)[:5])
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 5
    assert kept_bytes < 1_000_000  # all embeddings have 8 MB


def test_packs_of_earlier_versions_are_read_once_by_each_dataset(objects: ObjectStore, tmp_path: Path) -> None:
    FeatureFiles(objects, DATASET, tmp_path).put_many(SPACE, EMBEDDINGS)
    (own,) = packs(objects)
    earlier = f"features/{SPACE}/{own.rpartition('/')[2]}"
    objects.put_named(earlier, objects.get(own))
    objects.delete(own)
    wanted = list(EMBEDDINGS)[:2]
    found = FeatureFiles(objects, DATASET, tmp_path / "one").get_many(SPACE, wanted)
    objects.delete(earlier)
    assert same(found, {image: EMBEDDINGS[image] for image in wanted})
    assert same(FeatureFiles(objects, DATASET, tmp_path / "two").get_many(SPACE, wanted), dict(found))

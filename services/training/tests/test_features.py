"""Features are computed once, are returned in the requested order, and are stored when a run is stopped."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_features import MemoryFeatureStore
from vesta_training.example import Array
from vesta_training.features.features import BATCH_SIZE, extract_features
from vesta_training.features.runtime import ModelRuntime


class Stopped(Exception):
    pass


@pytest.fixture
def extract(digits: Any, backbone_path: Path):
    def run(numbers: list[int], store: MemoryFeatureStore, **arguments: Any) -> Array:
        return extract_features(
            [digits.sha256s[number] for number in numbers],
            model=lambda: ModelRuntime(backbone_path),
            embedding_digest="space",
            store=store,
            pixels=digits.pixels,
            threads=2,
            **arguments,
        )

    return run


def test_embeddings_are_in_request_order_and_duplicates_are_computed_once(
    digits: Any, extract: Any, backbone_path: Path
) -> None:
    digits.asked.clear()
    found = extract([5, 3, 5, 11], MemoryFeatureStore())
    alone = ModelRuntime(backbone_path).embed(digits.pixels(digits.sha256s[3])[None])

    assert sorted(digits.asked[:3]) == [digits.sha256s[number] for number in (3, 5, 11)]
    assert found[1] == pytest.approx(alone[0], abs=1e-5)
    assert (found[0] == found[2]).all()


def test_stored_embeddings_are_neither_fetched_nor_computed(digits: Any, extract: Any) -> None:
    store = MemoryFeatureStore()
    first = extract(list(range(10)), store)
    digits.asked.clear()
    again = extract(list(range(9, -1, -1)), store)

    assert digits.asked == []
    assert (again == first[::-1]).all()


def test_each_backbone_has_its_own_features(extract: Any, digits: Any) -> None:
    store = MemoryFeatureStore()
    extract([0], store)

    assert store.get_many("another space", [digits.sha256s[0]]) == {}


def test_a_stopped_run_keeps_its_computed_embeddings(extract: Any, digits: Any) -> None:
    store = MemoryFeatureStore()

    def stop_at_the_second_batch(step: int, steps: int) -> None:
        if step == 2 * BATCH_SIZE:
            raise Stopped

    with pytest.raises(Stopped):
        extract(list(range(40)), store, embedded=stop_at_the_second_batch, kept_at_once=BATCH_SIZE)

    assert len(store.get_many("space", digits.sha256s)) == 2 * BATCH_SIZE


def test_progress_counts_only_missing_embeddings(extract: Any) -> None:
    store, told = MemoryFeatureStore(), []
    extract(list(range(6)), store)
    extract(list(range(20)), store, embedded=lambda step, steps: told.append((step, steps)))

    assert told == [(8, 14), (14, 14)]


def test_no_images_have_no_features(extract: Any) -> None:
    assert len(extract([], MemoryFeatureStore())) == 0


def test_an_image_that_cannot_be_fetched_ends_the_run_with_its_error(digits: Any, backbone_path: Path) -> None:
    def unreadable(sha256: str) -> np.ndarray:
        raise OSError(f"{sha256} is gone")

    with pytest.raises(OSError, match="is gone"):
        extract_features(
            digits.sha256s[:30],
            model=lambda: ModelRuntime(backbone_path),
            embedding_digest="space",
            store=MemoryFeatureStore(),
            pixels=unreadable,
            threads=2,
        )

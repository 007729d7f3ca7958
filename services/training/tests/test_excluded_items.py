"""Items that a run leaves out and metrics that it cannot measure, from the manifest to the version and its card."""

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.training.v1 import ExclusionCounts, ModelVersion
from vesta_training.recipes.recipe import builtin_yaml
from vesta_training.runs.job import Job, run_job
from vesta_training.settings import Settings

CONCEPTS = ("digit-0", "digit-1")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
Row = tuple[int, str, list[str] | None, datetime | None]


@pytest.fixture
def objects(service_settings: Callable[[str], dict[str, Any]], tmp_path: Path) -> Iterator[ObjectStore]:
    settings = Settings(
        **service_settings("training"),
        datasets_address="127.0.0.1:1",
        serving_address="127.0.0.1:1",
        work_folder=str(tmp_path),
    )
    store = ObjectStore.of(settings)
    yield store
    store.close()


def trained(objects: ObjectStore, digits: Any, work_folder: Path, rows: list[Row]) -> ModelVersion:
    """Trains on a snapshot of these items: number of the digit, split, image labels, accept time."""
    stored = []
    for number, split, labels, accept_time in rows:
        target = io.BytesIO()
        Image.fromarray(digits.pixels(digits.sha256s[number])).save(target, "PNG")
        sha256 = objects.put("media", target.getvalue()).sha256
        stored.append(
            {
                "name": f"items/{number}",
                "sha256": sha256,
                "split": split,
                "labels": labels,
                "control": False,
                "accept_time": accept_time,
            }
        )
    types = {"labels": pa.list_(pa.string()), "accept_time": pa.timestamp("us", tz="UTC")}
    columns = {name: pa.array([row[name] for row in stored], types.get(name)) for name in stored[0]}
    manifest = io.BytesIO()
    pq.write_table(pa.table(columns), manifest)
    job = Job(
        run="projects/acme/trainingRuns/r",
        recipe_name="classification",
        recipe_yaml=builtin_yaml("classification"),
        concepts=CONCEPTS,
        snapshot="projects/acme/datasets/digits/snapshots/s",
        snapshot_digest="d",
        manifest_key=objects.put("manifests", manifest.getvalue()).key,
        champion="",
        champion_key="",
        champion_digest="",
        seed=1,
        work_folder=str(work_folder),
    )
    return ModelVersion.FromString(run_job(job, objects, lambda progress: None).version)


def labelled(digits: Any, split: str, count: int, first: int = 0) -> list[Row]:
    """Returns `count` rows of zeros and ones, from position `first`, with their labels."""
    found = [number for number, label in enumerate(digits.labels) if label in CONCEPTS][first : first + count]
    return [(number, split, [digits.labels[number]], NOW) for number in found]


def test_unusable_items_are_excluded_and_counted(objects: ObjectStore, digits: Any, tmp_path: Path) -> None:
    odd: list[Row] = [
        (2, "TRAIN", None, NOW),  # a box
        (3, "TEST", None, NOW),
        (4, "TRAIN", [], NOW),
        (5, "TRAIN", ["digit-0", "digit-1"], NOW),
        (6, "TRAIN", ["digit-6"], NOW),
        (7, "TRAIN", None, None),  # not annotated
    ]
    rows = [*labelled(digits, "TRAIN", 10), *labelled(digits, "TEST", 6, first=10), *odd]
    version = trained(objects, digits, tmp_path, rows)
    assert version.excluded == ExclusionCounts(
        no_label_count=1, multiple_labels_count=1, shapes_only_count=2, unknown_concept_count=1
    )
    assert (version.metrics.item_count, version.metrics_missing_reason) == (6, "")
    assert len(version.held_out.levels) == 6
    assert "TRAIN 10, VALIDATION 0, TEST 6" in version.card
    assert "2 with shapes and no image label" in version.card


def test_excluded_test_items_are_evidence_of_errors(objects: ObjectStore, digits: Any, tmp_path: Path) -> None:
    odd: list[Row] = [
        (4, "TEST", [], NOW),
        (5, "TEST", ["digit-0", "digit-1"], NOW),
        (6, "TEST", ["digit-6"], NOW),
        (7, "TEST", None, NOW),  # a box: it is unknown whether a prediction is right
    ]
    version = trained(
        objects, digits, tmp_path, [*labelled(digits, "TRAIN", 10), *labelled(digits, "TEST", 6, first=10), *odd]
    )
    right = round(version.metrics.accuracy.value * 6)
    assert version.metrics.item_count == 6
    assert (len(version.held_out.correct), sum(version.held_out.correct)) == (9, right)
    assert list(version.held_out.concept_counts) == [1] * 9
    assert not version.held_out.drawn_at_random


def test_without_labelled_test_items_a_version_has_a_reason_instead_of_metrics(
    objects: ObjectStore, digits: Any, tmp_path: Path
) -> None:
    version = trained(objects, digits, tmp_path, [*labelled(digits, "TRAIN", 10), (3, "TEST", None, None)])
    assert not version.HasField("metrics")
    assert not version.HasField("excluded")
    assert not version.HasField("held_out")
    assert "test split" in version.metrics_missing_reason
    assert "Not measured" in version.card

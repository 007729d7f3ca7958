"""A detection run reads the boxes of a snapshot and returns a model version, with a real object store."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from boxed_scenes import CONCEPTS, Scenes
from google.protobuf import json_format
from scene_snapshots import a_job
from tiny_detector import CARD, TinyDetector
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.training.v1 import ModelVersion, PretrainedDetector
from vesta_training.pretrained.files import FOLDER
from vesta_training.recipes.recipe import builtin_yaml
from vesta_training.runs.job import run_job
from vesta_training.settings import Settings


@pytest.fixture
def settings(service_settings: Callable[[str], dict[str, Any]], tmp_path: Path) -> Settings:
    return Settings(
        **service_settings("training"),
        datasets_address="127.0.0.1:1",
        serving_address="127.0.0.1:1",
        work_folder=str(tmp_path / "work"),
    )


@pytest.fixture
def objects(settings: Settings) -> Iterator[ObjectStore]:
    store = ObjectStore.of(settings)
    yield store
    store.close()


def small_recipe() -> str:
    recipe = yaml.safe_load(builtin_yaml("detection"))
    recipe["detection"] |= {"side_px": 128, "views": 2, "steps_min": 30, "steps_max": 30, "pyramid_channels": 16}
    return yaml.safe_dump(recipe)


def test_a_run_on_a_snapshot_with_boxes_gives_a_detector(objects: ObjectStore, settings: Settings) -> None:
    job = a_job(
        objects,
        Scenes(14),
        10,
        recipe_yaml=small_recipe(),
        work_folder=settings.work_folder,
    )
    phases: list[str] = []

    outcome = run_job(job, objects, lambda progress: phases.append(progress.phase))

    version = ModelVersion.FromString(outcome.version)
    assert (version.task, version.task_type) == ("detection", TaskType.TASK_TYPE_DETECTION)
    assert [output.name for output in version.signature.outputs] == ["objects", "embedding"]
    assert tuple(version.concepts) == CONCEPTS
    assert len(version.thresholds) == 2
    assert version.metrics.item_count == 4
    assert version.metrics.object_count == 9
    assert version.metrics.HasField("mean_average_precision_50")
    assert not version.metrics.HasField("accuracy")
    assert objects.get(version.onnx_key, sha256=version.digest)
    assert list(dict.fromkeys(phases)) == ["features", "head", "export", "evaluate"]


def test_a_run_starts_from_an_imported_detector_unless_it_was_deleted(objects: ObjectStore, settings: Settings) -> None:
    stored = objects.put(FOLDER, TinyDetector(64).content())
    detector = PretrainedDetector(name="projects/acme/pretrainedDetectors/tiny", card=CARD, digest=stored.sha256)
    job = a_job(
        objects,
        Scenes(9),
        6,
        run="projects/acme/trainingRuns/imported",
        recipe_yaml=small_recipe(),
        work_folder=settings.work_folder,
        pretrained_detector=json_format.MessageToJson(detector),
    )
    card = ModelVersion.FromString(run_job(job, objects, lambda _: None).version).card
    assert f"| {detector.name} |" in card
    assert "| Apache-2.0 | a test |" in card

    gone = PretrainedDetector(name="projects/acme/pretrainedDetectors/gone", card=CARD, digest="0" * 64)
    without = replace(job, pretrained_detector=json_format.MessageToJson(gone))
    card = ModelVersion.FromString(run_job(without, objects, lambda _: None).version).card
    assert f"{gone.name} was deleted; import it again" in card
    assert f"| {gone.name} |" not in card

"""A detector is tuned by the two pods of a Job as by one process."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from boxed_scenes import Scenes
from job_site import Site, ends_of
from scene_snapshots import a_job
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.training.v1 import TrainingProgress
from vesta_training.recipes.recipe import builtin_yaml
from vesta_training.runs.job import run_job
from vesta_training.settings import Settings


def small_recipe() -> str:
    recipe = yaml.safe_load(builtin_yaml("detection-finetune"))
    recipe["detection"] |= {"side_px": 128, "views": 2, "steps_min": 30, "steps_max": 30, "pyramid_channels": 16}
    recipe["detection_finetune"] |= {"epochs": 1, "batch_size": 3}
    return yaml.safe_dump(recipe)


@pytest.fixture
def site(service_settings: Callable[[str], dict[str, Any]], tmp_path: Path) -> Iterator[Site]:
    settings = Settings(
        **service_settings("training"),
        datasets_address="127.0.0.1:1",
        serving_address="127.0.0.1:1",
        work_folder=str(tmp_path),
    )
    objects = ObjectStore.of(settings)
    job = a_job(
        objects,
        Scenes(15),
        12,
        recipe_name="detection-finetune",
        recipe_yaml=small_recipe(),
        work_folder="elsewhere",
    )
    made = Site(settings, objects, job, tmp_path, [])
    yield made
    for pod in made.started:
        pod.terminate()
        pod.communicate()
    objects.close()


def test_two_pods_tune_the_same_detector_as_one_process(site: Site) -> None:
    updates: list[TrainingProgress] = []
    alone = run_job(replace(site.job, work_folder=str(site.folder / "alone")), site.objects, updates.append)
    site.exchange.put_job(site.job)

    ends = ends_of(site.pods(nodes=2))

    assert [code for code, _ in ends] == [0, 0], ends
    (one, expected), (two, found) = site.model(alone), site.model(site.exchange.find_result())
    assert list(dict.fromkeys(update.phase for update in updates)) == [
        "features",
        "head",
        "finetune",
        "export",
        "evaluate",
    ]
    assert two.metrics.mean_average_precision_50.value == pytest.approx(one.metrics.mean_average_precision_50.value)
    assert two.thresholds == pytest.approx(one.thresholds, abs=1e-3)
    assert set(found) == set(expected)
    assert all(found[name] == pytest.approx(expected[name], abs=1e-3) for name in expected)

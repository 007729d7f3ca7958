"""Jobs with a real object store. The work folder is a cache, which can be lost at any time."""

import hashlib
import io
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from executors_contract import end_of
from PIL import Image
from training_service import refusal
from vesta_common.errors import FailedPrecondition, Unavailable
from vesta_common.manifests import Manifest, Part
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.training.v1 import ModelVersion, RandomLabels, TrainingProgress
from vesta_training.executors.local import LocalProcessExecutor
from vesta_training.hardware import find_cuda
from vesta_training.recipes.recipe import builtin_yaml
from vesta_training.runs.folders import run_folder
from vesta_training.runs.job import Job, measure_job, run_job
from vesta_training.settings import Settings

TRAIN, TEST = range(30), range(30, 40)


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


def a_manifest(objects: ObjectStore, digits: Any, numbers: Iterable[int]) -> str:
    """Stores the manifest of a snapshot of these digits, and returns its key."""
    rows = []
    for number in numbers:
        picture = io.BytesIO()
        Image.fromarray(digits.pixels(digits.sha256s[number])).save(picture, "PNG")
        rows.append(
            {
                "name": f"items/{number}",
                "sha256": objects.put("media", picture.getvalue()).sha256,
                "split": "TRAIN" if number in TRAIN else "TEST",
                "labels": [digits.labels[number]],
                "control": False,
                "accept_time": datetime(2026, 3, 1, tzinfo=UTC),
            }
        )
    parts = []
    for part in (rows[:5], rows[5:]):
        file = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(part), file)
        key = objects.put("manifests", file.getvalue()).key
        parts.append(Part(key, "d" * 64, part[0]["name"], part[-1]["name"], len(part)))
    return objects.put("manifests", Manifest("d" * 64, tuple(parts)).to_json()).key


@pytest.fixture
def job(objects: ObjectStore, digits: Any, settings: Settings) -> Job:
    """Returns the job of a run on forty digits, with the model of an earlier run as champion."""
    return Job(
        run="projects/acme/trainingRuns/r",
        recipe_name="classification",
        recipe_yaml=builtin_yaml("classification"),
        concepts=digits.concepts,
        snapshot="projects/acme/datasets/digits/snapshots/1",
        snapshot_digest="d" * 64,
        manifest_key=a_manifest(objects, digits, (*TRAIN, *TEST)),
        champion="",
        champion_key="",
        champion_digest="",
        seed=0,
        work_folder=settings.work_folder,
    )


def with_champion(job: Job, version: ModelVersion) -> Job:
    return Job(
        **{**vars(job), "champion": "versions/1", "champion_key": version.onnx_key, "champion_digest": version.digest}
    )


def version_of(
    job: Job, objects: ObjectStore, tell: Callable[[TrainingProgress], None] = lambda _: None
) -> ModelVersion:
    return ModelVersion.FromString(run_job(job, objects, tell).version)


def delete(folder: Path) -> None:
    shutil.rmtree(folder)


def fill_with_zeros(folder: Path) -> None:
    """Simulates files that were written just before a power failure."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("lose", [delete, fill_with_zeros])
def test_the_work_folder_may_be_lost_between_runs(job: Job, objects: ObjectStore, lose: Callable[[Path], None]) -> None:
    first = version_of(job, objects)
    again = with_champion(job, first)
    assert version_of(again, objects).digest == first.digest
    lose(Path(job.work_folder))
    assert version_of(again, objects).digest == first.digest


def test_embeddings_are_not_computed_again_where_only_the_copies_are_lost(job: Job, objects: ObjectStore) -> None:
    phases: list[str] = []
    version_of(job, objects, lambda moment: phases.append(moment.phase))
    assert "features" in phases
    delete(Path(job.work_folder))
    told: list[TrainingProgress] = []
    version_of(job, objects, told.append)
    assert max(moment.step for moment in told if moment.phase == "features") == 0


@pytest.mark.parametrize("phase", ["features", "evaluate"])
def test_a_run_whose_files_are_deleted_meanwhile_is_retried_and_succeeds(
    job: Job, objects: ObjectStore, phase: str
) -> None:
    first = version_of(job, objects)

    def delete_in_the_phase(moment: TrainingProgress) -> None:
        if moment.phase == phase:
            shutil.rmtree(job.work_folder, ignore_errors=True)

    try:
        lost = version_of(with_champion(job, first), objects, delete_in_the_phase)
        assert lost.digest == first.digest  # the file was no longer needed
    except Unavailable as error:
        assert error.reason == "WORK_FOLDER_LOST"  # noqa: PT017
    assert version_of(with_champion(job, first), objects).digest == first.digest


def test_a_deleted_run_folder_causes_another_attempt(job: Job, objects: ObjectStore) -> None:
    def delete_own(moment: TrainingProgress) -> None:
        if moment.phase == "export":
            shutil.rmtree(run_folder(Path(job.work_folder), job.run), ignore_errors=True)

    refusal(Unavailable, lambda: version_of(job, objects, delete_own), "WORK_FOLDER_LOST")


def test_a_full_disk_is_awaited(job: Job, objects: ObjectStore) -> None:
    def fill(moment: TrainingProgress) -> None:
        raise OSError(28, "No space left on device")

    refusal(Unavailable, lambda: version_of(job, objects, fill), "WORK_FOLDER_FULL")


def test_a_work_folder_that_is_no_folder_is_reported(job: Job, objects: ObjectStore) -> None:
    Path(job.work_folder).touch()
    refusal(FailedPrecondition, lambda: version_of(job, objects), "WORK_FOLDER_UNUSABLE")


def test_another_process_with_an_empty_folder_trains_the_same_model(
    job: Job, objects: ObjectStore, settings: Settings, tmp_path: Path
) -> None:
    first = version_of(job, objects)
    elsewhere = Job(**{**vars(with_champion(job, first)), "work_folder": str(tmp_path / "second machine")})
    executor = LocalProcessExecutor(settings)
    try:
        executor.start("train-elsewhere", elsewhere)
        outcome = end_of(executor, "train-elsewhere").outcome
    finally:
        executor.close()
    assert ModelVersion.FromString(outcome.version).digest == first.digest
    assert outcome.comparison


def test_a_result_has_its_device_and_threads(job: Job, objects: ObjectStore) -> None:
    outcome = run_job(replace(job, device="auto", threads=2), objects, lambda _: None)
    assert (outcome.device, outcome.thread_count) == ("cpu", 2)  # the installed onnxruntime is built for the CPU
    assert "* Computed on: cpu, 2 threads" in ModelVersion.FromString(outcome.version).card


def test_requested_cuda_is_used_or_rejected(job: Job, objects: ObjectStore) -> None:
    on_cuda = replace(job, device="cuda")
    if find_cuda():
        refusal(FailedPrecondition, lambda: run_job(on_cuda, objects, lambda _: None), "DEVICE_MISSING")
    else:
        assert run_job(on_cuda, objects, lambda _: None).device == "cuda"


def test_skipped_fine_tuning_has_a_reason_in_the_run_and_on_the_card(
    job: Job, objects: ObjectStore, digits: Any
) -> None:
    first_of_each = {digits.labels[number]: number for number in reversed(TRAIN)}
    few = a_manifest(objects, digits, [*sorted(first_of_each.values()), *TEST])
    tuned = replace(
        job,
        recipe_name="classification-finetune",
        recipe_yaml=builtin_yaml("classification-finetune"),
        manifest_key=few,
    )
    outcome = run_job(tuned, objects, lambda _: None)
    assert "none of the 10 labelled images could be held out" in outcome.finetune_skipped
    assert outcome.finetune_skipped in ModelVersion.FromString(outcome.version).card
    untuned = run_job(replace(job, manifest_key=few), objects, lambda _: None)
    assert untuned.finetune_skipped == ""


def test_a_weights_file_is_fetched_again_if_its_copy_is_damaged(job: Job, objects: ObjectStore, backbone: Any) -> None:
    content = backbone.weights_path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    objects.put("weights", content)
    recipe = builtin_yaml("embedding").replace("value: packaged", f"value: {digest}")
    own_weights = Job(**{**vars(job), "recipe_name": "own", "recipe_yaml": recipe, "manifest_key": ""})
    first = version_of(own_weights, objects)
    for path in Path(job.work_folder).rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert version_of(own_weights, objects).digest == first.digest
    assert np.all([path.stat().st_size for path in (Path(job.work_folder) / "weights").iterdir()])


def test_the_curve_of_a_stored_model_is_measured_on_another_machine(job: Job, objects: ObjectStore) -> None:
    trained = version_of(job, objects)
    measured = replace(job, measured_key=trained.onnx_key, measured_digest=trained.digest)
    delete(Path(job.work_folder))
    phases: list[str] = []

    curve = measure_job(measured, objects, lambda moment: phases.append(moment.phase))

    assert RandomLabels.FromString(curve.random_labels).reason
    assert set(phases) == {"curve"}


def test_the_curve_of_a_deleted_model_cannot_be_measured(job: Job, objects: ObjectStore) -> None:
    gone = replace(job, measured_key="models/gone", measured_digest="0" * 64)
    refusal(FailedPrecondition, lambda: measure_job(gone, objects, lambda _: None), "MODEL_FILE_DELETED")

"""The job of a run in a training process: its input and its result as serialisable values, and its execution."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from vesta_common.manifests import read_manifest, read_rows
from vesta_common.media.model_input import SQUARE, InputFormat
from vesta_common.media.model_pictures import model_pixels
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.training.v1 import Comparison, ModelVersion, TrainingProgress

from vesta_training.example import Pixels
from vesta_training.features.backbone import find_backbone, load_network
from vesta_training.features.feature_files import FeatureFiles
from vesta_training.hardware import AUTO, CPU, CUDA_PROVIDER, choose_device, find_cuda
from vesta_training.progress import ProgressUpdate
from vesta_training.recipes.recipe import Recipe, read_recipe
from vesta_training.recipes.task_types import model_task_type_of
from vesta_training.runs.folders import run_folder, usable
from vesta_training.runs.job_files import champion_of, measured_model, pretrained_of, weights_file
from vesta_training.tasks.assignment import Assignment, Dependencies, Trained
from vesta_training.tasks.checkpoints import NO_COPIES, Checkpoints
from vesta_training.tasks.group import NO_OTHER_RANKS, Group, OtherRanks, TuningInput
from vesta_training.tasks.registry import training_task
from vesta_training.tasks.training_task import Row, TrainingTask

MODEL_FOLDER = "models"


@dataclass(frozen=True)
class Job:
    """The input of a training process.

    Attributes:
        run: name of the run.
        recipe_name, recipe_yaml: the recipe.
        manifest_key: object key of the snapshot's manifest; empty for task EMBEDDING.
        champion_key: object key of the ONNX file to compare with; empty for none.
        champion_missing: why there is no champion file although a champion is set.
        test_split_is_random: whether the test split is a random sample of the same images.
        work_folder: for files that are kept between runs. Runs of other processes can share it.
        device: `auto`, `cpu` or `cuda`.
        threads: number of compute threads; see `hardware.thread_count`.
        deadline_seconds: 0 for none.
        pretrained_detector: a PretrainedDetector to start from, as JSON; empty for none.
        measured_key: object key of the model of the run, if its learning curve is to be measured; empty to train a model.
    """

    run: str
    recipe_name: str
    recipe_yaml: str
    concepts: tuple[str, ...]
    snapshot: str
    snapshot_digest: str
    manifest_key: str
    champion: str
    champion_key: str
    champion_digest: str
    seed: int
    work_folder: str
    device: str = CPU
    threads: int = 1
    champion_missing: str = ""
    test_split_is_random: bool = False
    deadline_seconds: int = 0
    pretrained_detector: str = ""
    measured_key: str = ""
    measured_digest: str = ""


@dataclass(frozen=True)
class RunResult:
    """The result of a training. Protobuf messages are serialised.

    Attributes:
        version: a ModelVersion without a name.
        comparison: a Comparison; empty for none.
        comparison_missing: why there is no comparison although a champion is set.
        held_out_accuracy: an Estimate.
        finetune_skipped: why the fine-tuning of the recipe was skipped; empty if it was not.
    """

    version: bytes
    comparison: bytes = b""
    comparison_missing: str = ""
    held_out_accuracy: bytes | None = None
    device: str = CPU
    thread_count: int = 1
    finetune_skipped: str = ""


@dataclass(frozen=True)
class CurveResult:
    """The result of the measurement of a learning curve. Protobuf messages are serialised.

    Attributes:
        points: LearningCurvePoints.
        random_labels: a RandomLabels.
    """

    points: tuple[bytes, ...]
    random_labels: bytes


def run_job(
    job: Job,
    objects: ObjectStore,
    publish: Callable[[TrainingProgress], None],
    checkpoints: Checkpoints = NO_COPIES,
    other_ranks: OtherRanks = NO_OTHER_RANKS,
) -> RunResult:
    """Reads the snapshot, trains a model and stores the model file. To cancel it, kill the process.

    Args:
        publish: called with progress.
        checkpoints: additional storage of checkpoints, beside the work folder.
        other_ranks: the other processes of a distributed run.

    Raises:
        LearningError: the training failed permanently.
        Unavailable: the object store does not respond, or the work folder is lost or full.
        FailedPrecondition: the work folder is not usable.
    """
    work = Path(job.work_folder)
    with usable(work, run_folder(work, job.run)):
        task, assignment, dependencies = _prepare(job, objects, checkpoints, other_ranks)
        trained = task.train(assignment, dependencies, lambda update: publish(_message(update)))
        return _stored(trained, objects, dependencies.device, job.threads)


def measure_job(
    job: Job,
    objects: ObjectStore,
    publish: Callable[[TrainingProgress], None],
    checkpoints: Checkpoints = NO_COPIES,
) -> CurveResult:
    """Measures the learning curve of a run whose model is stored; see `run_job`.

    Raises:
        FailedPrecondition: MODEL_FILE_DELETED, or the work folder is not usable.
    """
    work = Path(job.work_folder)
    own = run_folder(work, job.run)
    with usable(work, own):
        task, assignment, dependencies = _prepare(job, objects, checkpoints, NO_OTHER_RANKS)
        model = measured_model(job, objects, own)
        curve = task.measure_curve(assignment, dependencies, model, lambda update: publish(_message(update)))
        points = tuple(point.SerializeToString() for point in curve.points)
        return CurveResult(points, curve.random_labels.SerializeToString())


def finetune_on_other_rank(job: Job, objects: ObjectStore, inputs: TuningInput, group: Group) -> None:
    """Takes part in distributed fine-tuning. Only the first process (rank 0) writes results.

    Raises:
        LearningError: the training failed permanently.
        DeviceError: the first process has a GPU, and this one has none.
        Unavailable: the object store or another process does not respond.
    """
    work = Path(job.work_folder)
    choose_device(inputs.device, "" if inputs.device == CPU else find_cuda())
    with usable(work, run_folder(work, job.run)):
        recipe = read_recipe(job.recipe_name, job.recipe_yaml)
        backbone = find_backbone(recipe.backbone, lambda sha256: weights_file(objects, work, sha256))
        pixels = partial(_pixels, objects)
        inputs.take_part(lambda: load_network(backbone), pixels=pixels, threads=job.threads, group=group)


def _prepare(
    job: Job, objects: ObjectStore, checkpoints: Checkpoints, other_ranks: OtherRanks
) -> tuple[TrainingTask, Assignment, Dependencies]:
    """Reads the snapshot and the champion."""
    work = Path(job.work_folder)
    recipe = read_recipe(job.recipe_name, job.recipe_yaml)
    task = training_task(recipe.task)
    rows = _read_rows(objects, job.manifest_key, task.columns) if job.manifest_key else iter(())
    examples, shapes_only_count = task.examples(rows)
    champion, champion_missing = champion_of(job, objects, work)
    pretrained, pretrained_missing = pretrained_of(job, objects, work)
    device = _device(job.device, recipe)
    assignment = Assignment(
        recipe=recipe,
        examples=examples,
        shapes_only_count=shapes_only_count,
        concepts=job.concepts,
        snapshot=job.snapshot,
        snapshot_digest=job.snapshot_digest,
        champion=champion,
        champion_missing=champion_missing,
        test_split_is_random=job.test_split_is_random,
        seed=job.seed,
        pretrained=pretrained,
        pretrained_missing=pretrained_missing,
    )
    dependencies = Dependencies(
        pixels=partial(_pixels, objects),
        features=FeatureFiles(objects, "/".join(job.snapshot.split("/")[:4]), work / "features"),
        weights_file=lambda sha256: weights_file(objects, work, sha256),
        folder=work,
        run_folder=run_folder(work, job.run),
        threads=job.threads,
        device=device,
        checkpoints=checkpoints,
        other_ranks=other_ranks,
    )
    return task, assignment, dependencies


def _stored(trained: Trained, objects: ObjectStore, device: str, threads: int) -> RunResult:
    """Stores the model file of a training, and returns its result."""
    stored = objects.put(MODEL_FOLDER, trained.onnx_path)
    version = ModelVersion(
        task=str(trained.task),  # for services of the previous version
        task_type=model_task_type_of(trained.task),
        signature=trained.signature,
        onnx_key=stored.key,
        digest=trained.digest,
        size_bytes=trained.size_bytes,
        concepts=trained.concepts,
        thresholds=trained.thresholds,
        embedding_digest=trained.embedding_digest,
        embedding_dimension=trained.embedding_dimension,
        card=trained.card_markdown,
        metrics_missing_reason=trained.metrics_missing_reason,
    )
    if trained.excluded.ByteSize():
        version.excluded.CopyFrom(trained.excluded)
    if trained.metrics is not None:
        version.metrics.CopyFrom(trained.metrics)
    if trained.held_out is not None:
        version.held_out.CopyFrom(trained.held_out)
    comparison: Comparison | None = trained.comparison
    return RunResult(
        version=version.SerializeToString(),
        comparison=comparison.SerializeToString() if comparison else b"",
        comparison_missing=trained.comparison_missing,
        held_out_accuracy=trained.held_out_accuracy.SerializeToString() if trained.held_out_accuracy else None,
        device=device,
        thread_count=threads,
        finetune_skipped=trained.finetune_skipped,
    )


def _device(requested: str, recipe: Recipe) -> str:
    """Returns the device. Without fine-tuning only onnxruntime uses it, and PyTorch is not needed to detect it.

    Raises:
        DeviceError: CUDA is requested and not available.
    """
    if requested == AUTO and not recipe.finetunes:
        has_cuda = CUDA_PROVIDER in onnxruntime.get_available_providers()
        return choose_device(requested, "" if has_cuda else "this onnxruntime is a CPU-only build")
    return choose_device(requested, "" if requested == CPU else find_cuda())


def _read_rows(objects: ObjectStore, manifest_key: str, columns: Sequence[str]) -> Iterator[Row]:
    """Yields the rows of a snapshot's manifest.

    Raises:
        DataLoss: an object of the snapshot is missing or damaged.
    """
    for batch in read_rows(objects, read_manifest(objects, manifest_key).parts, columns):
        for values in zip(*(batch[column] for column in columns), strict=True):
            yield dict(zip(columns, values, strict=True))


def _pixels(objects: ObjectStore, sha256: str, declared: InputFormat = SQUARE) -> Pixels:
    return np.asarray(model_pixels(objects.get(f"media/{sha256}", sha256=sha256), declared))


def _message(update: ProgressUpdate) -> TrainingProgress:
    message = TrainingProgress(phase=update.phase, step=update.step, step_count=update.step_count)
    if update.loss is not None:
        message.loss = update.loss
    message.time_left.FromTimedelta(update.time_left)
    return message

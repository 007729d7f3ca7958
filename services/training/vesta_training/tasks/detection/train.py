"""A training from images with boxes or masks to an evaluated detector."""

from collections.abc import Callable
from typing import Final

from threadpoolctl import threadpool_limits

from vesta_training.errors import TooFewLabelsError
from vesta_training.features.backbone import find_backbone
from vesta_training.metrics.detection import compare_objects, measure_objects
from vesta_training.progress import ProgressUpdate, Reporter
from vesta_training.recipes.choices import DetectionChoices
from vesta_training.recipes.recipe import Recipe
from vesta_training.tasks.assignment import Assignment, Dependencies, Trained, describe_excluded
from vesta_training.tasks.detection.detector import find_with_file
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.detection.finetuning.learn import (
    Parts,
    divide,
    learn_finetuned,
    plan_finetuned,
    skipped_reason,
)
from vesta_training.tasks.detection.held_out import held_out_predictions
from vesta_training.tasks.detection.starts import learn_from_better, starts_of
from vesta_training.tasks.views.measure import Measurement
from vesta_training.tasks.views.parallel_fits import parallel_fits
from vesta_training.tasks.views.training import learned_from, plan, result, usable_shapes

MEASUREMENT: Final = Measurement(BoxedExample, find_with_file, held_out_predictions, measure_objects, compare_objects)


def train(assignment: Assignment, dependencies: Dependencies, progress: Callable[[ProgressUpdate], None]) -> Trained:
    """Trains, evaluates and exports a detector; see `TrainingTask.train`."""
    with threadpool_limits(limits=1, user_api="blas"):
        return _train(assignment, dependencies, progress)


def _train(assignment: Assignment, dependencies: Dependencies, progress: Callable[[ProgressUpdate], None]) -> Trained:
    choices = assignment.recipe.detection or DetectionChoices()
    usable, excluded = usable_shapes(assignment, BoxedExample)
    known = learned_from(usable, choices, assignment.seed)
    if not any(example.has_objects for example in known):
        left_out = describe_excluded(excluded)
        raise TooFewLabelsError(
            "no item of the train split has an object"
            + (f"; excluded are {left_out}" if left_out else "")
            + ". Draw objects on some images, and create a new snapshot"
        )
    tuning = assignment.recipe.detection_finetune
    parts = divide(known, tuning, assignment.seed) if tuning is not None else None
    report = Reporter(progress, dependencies.clock, _plan(assignment.recipe, parts, len(known), dependencies))
    report.begin("features")
    backbone = find_backbone(assignment.recipe.backbone, dependencies.weights_file)
    starts = starts_of(assignment, dependencies, report, backbone, known)
    report.begin("head")
    missing, skipped = assignment.pretrained_missing, ""
    if tuning is not None and parts is not None:
        start, learned = learn_finetuned(starts, parts, assignment, dependencies, report, missing)
    else:
        with parallel_fits(dependencies, report.step) as fits:
            start, learned = learn_from_better(starts, known, missing, fits)
        skipped = skipped_reason(len(known)) if tuning is not None else ""
    report.begin("export", 1)
    export = start.export(learned.detector, dependencies.run_folder / "model.onnx")
    report.begin("evaluate")
    measured = MEASUREMENT.of(export.path, assignment, dependencies)
    report.step(1, 1)
    return result(assignment, dependencies, backbone, usable, excluded, learned, export, measured, skipped)


def _plan(recipe: Recipe, parts: Parts | None, image_count: int, dependencies: Dependencies) -> dict[str, float]:
    choices, tuning, threads = recipe.detection or DetectionChoices(), recipe.detection_finetune, dependencies.threads
    if tuning is None or parts is None:
        return plan(choices, image_count, threads)
    return plan_finetuned(choices, tuning, image_count, threads, dependencies.device)

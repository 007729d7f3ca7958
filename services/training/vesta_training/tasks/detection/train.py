"""A training from images with boxes to an evaluated detector."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits
from vesta_contracts.training.v1 import Comparison, ExclusionCounts, HeldOutPredictions, Metrics

from vesta_training.errors import TooFewLabelsError
from vesta_training.example import Split
from vesta_training.features.backbone import EMBEDDING_DIMENSION, Backbone, find_backbone, load_network
from vesta_training.metrics.detection import compare_objects, measure_objects
from vesta_training.metrics.objects import ObjectPredictions, over_concepts
from vesta_training.models.export import Export
from vesta_training.models.model_file import ModelFile, read_model
from vesta_training.progress import ProgressUpdate, Reporter
from vesta_training.recipes.recipe import DetectionChoices
from vesta_training.tasks.assignment import Assignment, Dependencies, Trained, describe_excluded
from vesta_training.tasks.detection.curve import control_curve
from vesta_training.tasks.detection.detector import find_with_file, predictions_of
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.detection.export import export_detector
from vesta_training.tasks.detection.fit import step_count
from vesta_training.tasks.detection.held_out import held_out_predictions
from vesta_training.tasks.detection.learn import Learned, Learner
from vesta_training.tasks.detection.view_maps import view_maps
from vesta_training.tasks.model_card import card_markdown, make_card

NO_TEST_LABELS = (
    "No item in the test split of the snapshot is annotated. Annotate items of the test split; if it is empty, add items to it, or "
    "create a dataset with a split_policy.test_share above 0."
)
# Durations on one CPU thread. They give the initial estimate of the time left, before steps are measured.
SECONDS_PER_VIEW = 0.03
SECONDS_PER_IMAGE_IN_STEP = 0.015
SECONDS_TO_EVALUATE = 10.0
SECONDS_TO_EXPORT = 2.0


def train(assignment: Assignment, dependencies: Dependencies, progress: Callable[[ProgressUpdate], None]) -> Trained:
    """Trains, evaluates and exports a detector; see `TrainingTask.train`."""
    with threadpool_limits(limits=1, user_api="blas"):
        return _train(assignment, dependencies, progress)


def _train(assignment: Assignment, dependencies: Dependencies, progress: Callable[[ProgressUpdate], None]) -> Trained:
    choices = assignment.recipe.detection or DetectionChoices()
    usable, excluded = _usable(assignment)
    test = [example for example in usable if example.split is Split.TEST]
    known = _learned_from(usable, choices, assignment.seed)
    if not any(len(example.boxes) for example in known):
        left_out = describe_excluded(excluded)
        raise TooFewLabelsError(
            "no item of the train split has a box"
            + (f"; excluded are {left_out}" if left_out else "")
            + ". Draw boxes on some images, and create a new snapshot"
        )
    report = Reporter(progress, dependencies.clock, _plan(choices, len(known), dependencies.threads))
    report.begin("features")
    backbone = find_backbone(assignment.recipe.backbone, dependencies.weights_file)
    network = load_network(backbone)
    views = view_maps(network, backbone, choices, len(known), dependencies.folder)
    views.compute(known, dependencies, report)
    learner = Learner(assignment, dependencies, report, views)
    learned = learner.learn(known)
    report.begin("export", 1)
    export = export_detector(
        network, learned.detector, backbone, choices.side_px, dependencies.run_folder / "model.onnx"
    )
    report.begin("evaluate")
    measured = _measure(assignment, dependencies, export)
    report.step(1, 1)
    trained = _trained(assignment, dependencies, backbone, usable, excluded, learned, export, measured)
    if not assignment.control_curve or not test:
        return trained
    report.begin("curve")
    solved = control_curve(learner, known, test)
    return replace(trained, control_curve=solved.points, random_labels=solved.random_labels)


@dataclass(frozen=True, slots=True)
class _Measured:
    """The evaluation on the test items; all None if there are none."""

    metrics: Metrics | None
    predictions: ObjectPredictions | None
    champion_predictions: ObjectPredictions | None
    comparison: Comparison | None
    comparison_missing: str
    held_out: HeldOutPredictions | None


def _measure(assignment: Assignment, dependencies: Dependencies, export: Export) -> _Measured:
    model, choices, seed = read_model(export.path), assignment.recipe.evaluation, assignment.seed
    champion = read_model(assignment.champion.path) if assignment.champion is not None else None
    annotated = [one for one in assignment.examples if isinstance(one, BoxedExample) and one.split is Split.TEST]
    all_predictions = find_with_file(export.path, model, annotated, dependencies)
    held_out = held_out_predictions(all_predictions, annotated, drawn_at_random=assignment.test_split_is_random)
    is_usable = [set(model.concepts).issuperset(example.concepts) for example in annotated]
    test = [example for example, usable in zip(annotated, is_usable, strict=True) if usable]
    missing = _incomparable(assignment, model, champion, test)
    if not test:
        return _Measured(None, None, None, None, missing, held_out)
    found_in_test = [found for found, usable in zip(all_predictions.found, is_usable, strict=True) if usable]
    predictions = predictions_of(test, found_in_test, model.concepts, model.thresholds)
    champion_predictions, comparison = None, None
    if champion is not None and not missing:
        assert assignment.champion is not None
        own = over_concepts(find_with_file(assignment.champion.path, champion, test, dependencies), model.concepts)
        # The truth is that of all concepts of the challenger, also of those that the champion does not know.
        found, thresholds = own.found, own.thresholds
        champion_predictions = predictions_of(test, found, model.concepts, thresholds)
        comparison = compare_objects(
            predictions, champion_predictions, choices, champion_name=assignment.champion.name, seed=seed
        )
    metrics = measure_objects(predictions, choices, seed=seed)
    return _Measured(metrics, predictions, champion_predictions, comparison, missing, held_out)


def _incomparable(
    assignment: Assignment, model: ModelFile, champion: ModelFile | None, test: Sequence[BoxedExample]
) -> str:
    """Returns why challenger and champion cannot be compared, with a suggested fix; empty if they can, or if there is no champion."""
    if assignment.champion is None or champion is None:
        return assignment.champion_missing
    if champion.task is not model.task:
        return (
            f"the champion {assignment.champion.name} has the task {champion.task.value} and the challenger the task "
            f"{model.task.value}; set model_version of the deployment to the challenger, or train with a recipe of the champion's task"
        )
    if not test:
        return "no item of the test split is annotated; add items to the test split, or annotate its items"
    return ""


def _usable(assignment: Assignment) -> tuple[list[BoxedExample], ExclusionCounts]:
    """Returns the examples whose concepts are all known, and the numbers of annotated items that are excluded, by reason."""
    concepts = set(assignment.concepts)
    examples = [example for example in assignment.examples if isinstance(example, BoxedExample)]
    usable = [example for example in examples if concepts.issuperset(example.concepts)]
    excluded = ExclusionCounts(
        shapes_only_count=assignment.shapes_only_count, unknown_concept_count=len(examples) - len(usable)
    )
    return usable, excluded


def _learned_from(usable: Sequence[BoxedExample], choices: DetectionChoices, seed: int) -> list[BoxedExample]:
    """Returns the examples to learn from: all outside the test split, or as many random ones as the recipe has views for."""
    known = [example for example in usable if example.split is not Split.TEST]
    if len(known) <= choices.views_total_max:
        return known
    chosen = np.random.default_rng(seed).permutation(len(known))[: choices.views_total_max]
    return [known[int(position)] for position in np.sort(chosen)]


def _trained(
    assignment: Assignment,
    dependencies: Dependencies,
    backbone: Backbone,
    usable: Sequence[BoxedExample],
    excluded: ExclusionCounts,
    learned: Learned,
    export: Export,
    measured: _Measured,
) -> Trained:
    model = read_model(export.path)
    missing_reason = "" if measured.metrics is not None else NO_TEST_LABELS
    card = make_card(
        recipe=assignment.recipe,
        backbone=backbone,
        snapshot=assignment.snapshot,
        snapshot_digest=assignment.snapshot_digest,
        examples=usable,
        concepts=assignment.concepts,
        excluded=excluded,
        fitted=learned.facts,
        metrics=measured.metrics,
        metrics_missing_reason=missing_reason,
        comparison=measured.comparison,
        export=export,
        embedding_digest=backbone.digest,
        seed=assignment.seed,
        device=dependencies.device,
        threads=dependencies.threads,
        finetune_skipped=learned.caution,
    )
    return Trained(
        onnx_path=export.path,
        digest=export.digest,
        size_bytes=export.size_bytes,
        task=model.task,
        signature=model.signature,
        concepts=model.concepts,
        thresholds=model.thresholds,
        embedding_digest=backbone.digest,
        embedding_dimension=EMBEDDING_DIMENSION,
        metrics=measured.metrics,
        metrics_missing_reason=missing_reason,
        excluded=excluded,
        predictions=measured.predictions,
        champion_predictions=measured.champion_predictions,
        comparison=measured.comparison,
        comparison_missing=measured.comparison_missing,
        control_curve=(),
        random_labels=None,
        held_out_accuracy=learned.held_out,
        card=card,
        card_markdown=card_markdown(card, measured.metrics),
        finetune_skipped="",
        held_out=measured.held_out,
    )


def _plan(choices: DetectionChoices, image_count: int, threads: int) -> dict[str, float]:
    """Returns the planned duration of each phase in seconds, in order."""
    views = min(choices.views * image_count, max(choices.views_total_max, image_count))
    steps = step_count(image_count, choices)
    seconds_per_step = choices.batch_size * SECONDS_PER_IMAGE_IN_STEP / threads
    fold = max(round(steps * choices.calibration_steps_share), choices.steps_min) * seconds_per_step
    return {
        "features": views * SECONDS_PER_VIEW / threads,
        "calibrate": fold * choices.calibration_folds,
        "head": steps * seconds_per_step,
        "export": SECONDS_TO_EXPORT,
        "evaluate": SECONDS_TO_EVALUATE,
    }

"""A training from labelled examples to an evaluated model file. `train` is the entry point."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from threadpoolctl import threadpool_limits
from vesta_contracts.training.v1 import Comparison, ExclusionCounts, LearningCurvePoint, Metrics, RandomLabels

from vesta_training.errors import TooFewLabelsError
from vesta_training.example import Array, Example, Split, label_matrix
from vesta_training.features.backbone import EMBEDDING_DIMENSION, Backbone, find_backbone
from vesta_training.heads.linear_head import Head
from vesta_training.metrics.comparison import compare
from vesta_training.metrics.evaluation import measure
from vesta_training.metrics.learning_curve import LearningCurve, learning_curve
from vesta_training.metrics.predictions import Labels, Predictions, over_concepts
from vesta_training.metrics.random_labels import random_labels
from vesta_training.models.export import export_backbone, export_model
from vesta_training.models.model_file import ModelFile, read_model
from vesta_training.progress import ProgressUpdate, Reporter, ignore_progress
from vesta_training.recipes.recipe import HeadChoices, Recipe, Task
from vesta_training.tasks.assignment import Assignment, Dependencies, Trained, describe_excluded, usable_examples
from vesta_training.tasks.classification.held_out import held_out_predictions
from vesta_training.tasks.classification.learn import Learned, learn
from vesta_training.tasks.classification.stage import Stage
from vesta_training.tasks.model_card import card_markdown, make_card

NO_CONCEPTS = "An embedding model has no concepts, so that there is no accuracy to measure."
NO_TEST_LABELS = (
    "No item in the test split of the snapshot is labelled. Label items of the test "
    "split; if it is empty, add items to it, or create a dataset with a "
    "split_policy.test_share above 0."
)

# Durations on one CPU thread. They give the initial estimate of the time left, before steps are measured.
SECONDS_PER_IMAGE = 0.012
SECONDS_PER_TUNED_IMAGE = 0.12
SECONDS_PER_LABEL_IN_HEAD = 0.002
SECONDS_TO_EVALUATE = 1.0
SECONDS_TO_EXPORT = 0.5
ONLY_EMBEDS = "the challenger only computes embeddings and makes no predictions to compare"


def train(
    assignment: Assignment, dependencies: Dependencies, *, progress: Callable[[ProgressUpdate], None] = ignore_progress
) -> Trained:
    """Trains, evaluates and exports a model. Equal assignments give equal files on equal machines.

    BLAS uses one thread, because more threads gain little on an idle machine and are slower on a busy one.

    To cancel a training, kill its process.

    Args:
        progress: called after every step.

    Raises:
        LearningError: the training failed permanently.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        return _train(assignment, dependencies, progress)


def _train(assignment: Assignment, dependencies: Dependencies, progress: Callable[[ProgressUpdate], None]) -> Trained:
    recipe = assignment.recipe
    usable, excluded = usable_examples(assignment)
    report = Reporter(progress, dependencies.clock, _plan(recipe, len(usable), dependencies.threads))
    report.begin("features", len(usable))
    backbone = find_backbone(recipe.backbone, dependencies.weights_file)
    base = Stage(dependencies, report, export_backbone(backbone, dependencies.folder), backbone.digest)
    if recipe.task is Task.EMBEDDING:
        return _finish(assignment, backbone, usable, excluded, Learned(None, base, {}), None)
    known = [example for example in usable if example.split is not Split.TEST]
    test = [example for example in usable if example.split is Split.TEST]
    if not known and describe_excluded(excluded):
        raise TooFewLabelsError(
            f"no item of the train split has a label; excluded are {describe_excluded(excluded)}. "
            "Label images as a whole and create a new snapshot"
        )
    base.embed([*known, *test])
    learned = learn(assignment, backbone, base, known)
    base.report.begin("evaluate")
    measured = _measure(assignment, learned, base, known, test) if test else None
    return _finish(assignment, backbone, usable, excluded, learned, measured)


@dataclass(frozen=True, slots=True)
class _Measured:
    """The evaluation of a challenger on the test items."""

    metrics: Metrics
    predictions: Predictions
    champion_predictions: Predictions | None
    comparison: Comparison | None
    comparison_missing: str
    control_curve: tuple[LearningCurvePoint, ...]
    random_labels: RandomLabels | None


def _measure(
    assignment: Assignment, learned: Learned, base: Stage, known: Sequence[Example], test: Sequence[Example]
) -> _Measured:
    assert learned.head is not None
    choices, seed = assignment.recipe.evaluation, assignment.seed
    predictions = learned.stage.predictions(learned.head, test)
    champion_predictions, comparison, missing = None, None, assignment.champion_missing
    if assignment.champion is not None:
        model = read_model(assignment.champion.path)
        missing = _incomparable(assignment, model, test)
        if not missing:
            assert model.head is not None
            champion = Stage(base.dependencies, base.report, assignment.champion.path, model.embedding_digest)
            champion_predictions = over_concepts(
                champion.predictions(model.head, test), predictions.concepts, predictions.truth
            )
            comparison = compare(
                predictions, champion_predictions, choices, champion_name=assignment.champion.name, seed=seed
            )
    curve = _learning_curve(assignment, base, known, test) if assignment.control_curve else None
    return _Measured(
        metrics=measure(predictions, choices, seed=seed),
        predictions=predictions,
        champion_predictions=champion_predictions,
        comparison=comparison,
        comparison_missing=missing,
        control_curve=tuple(curve.points) if curve else (),
        random_labels=random_labels(curve, predictions.right, seed=seed) if assignment.control_curve else None,
    )


def _uncompared(assignment: Assignment, head: Head | None) -> str:
    """Returns why a challenger without metrics is not compared with the champion; empty if no champion is set."""
    if assignment.champion is None:
        return assignment.champion_missing
    return ONLY_EMBEDS if head is None else _incomparable(assignment, read_model(assignment.champion.path), ())


def _incomparable(assignment: Assignment, champion: ModelFile, test: Sequence[Example]) -> str:
    """Returns why challenger and champion cannot be compared, with a suggested fix; empty if they can."""
    assert assignment.champion is not None
    name, task = assignment.champion.name, assignment.recipe.task
    if champion.head is None or champion.task is not task:
        return (
            f"the champion {name} has the task {champion.task.value} and the challenger the task "
            f"{task.value}; set model_version of the deployment to the challenger, or train with "
            "a recipe of the champion's task"
        )
    if not test:
        return "no item of the test split is labelled; add items to the test split, or label its items"
    return ""


def _learning_curve(
    assignment: Assignment, base: Stage, known: Sequence[Example], test: Sequence[Example]
) -> LearningCurve | None:
    """Computes the learning curve on features before fine-tuning, because fine-tuning has used labels that are not random."""
    control = [example for example in known if example.control]

    def labelled(examples: Sequence[Example]) -> tuple[Array, Labels]:
        return base.embed(examples), label_matrix(examples, assignment.concepts)

    return learning_curve(
        labelled(control),
        labelled(test),
        assignment.concepts,
        assignment.recipe.task,
        assignment.recipe.head or HeadChoices(),
        learns_from_test=assignment.test_split_is_random,
        draws=assignment.recipe.evaluation.control_curve_draws,
        seed=assignment.seed,
        measured=base.report.step,
    )


def _finish(
    assignment: Assignment,
    backbone: Backbone,
    usable: Sequence[Example],
    excluded: ExclusionCounts,
    learned: Learned,
    measured: _Measured | None,
) -> Trained:
    stage, head = learned.stage, learned.head
    held_out = held_out_predictions(assignment, stage, head) if head else None
    stage.report.begin("export", 1)
    export = export_model(stage.path, head, stage.embedding_digest, stage.dependencies.run_folder / "model.onnx")
    metrics = measured.metrics if measured else None
    comparison = measured.comparison if measured else None
    metrics_missing_reason = ""
    if metrics is None:
        metrics_missing_reason = NO_TEST_LABELS if head else NO_CONCEPTS
    card = make_card(
        recipe=assignment.recipe,
        backbone=backbone,
        snapshot=assignment.snapshot,
        snapshot_digest=assignment.snapshot_digest,
        examples=usable,
        concepts=assignment.concepts,
        excluded=excluded,
        fitted=learned.facts,
        metrics=metrics,
        metrics_missing_reason=metrics_missing_reason,
        comparison=comparison,
        export=export,
        embedding_digest=stage.embedding_digest,
        seed=assignment.seed,
        device=stage.dependencies.device,
        threads=stage.dependencies.threads,
        finetune_skipped=learned.finetune_skipped,
    )
    stage.report.step(1, 1)
    return Trained(
        onnx_path=export.path,
        digest=export.digest,
        size_bytes=export.size_bytes,
        task=assignment.recipe.task,
        signature=read_model(export.path).signature,
        concepts=head.concepts if head else (),
        thresholds=head.thresholds if head else (),
        embedding_digest=stage.embedding_digest,
        embedding_dimension=EMBEDDING_DIMENSION,
        metrics=metrics,
        metrics_missing_reason=metrics_missing_reason,
        excluded=excluded,
        predictions=measured.predictions if measured else None,
        champion_predictions=measured.champion_predictions if measured else None,
        comparison=comparison,
        comparison_missing=measured.comparison_missing if measured else _uncompared(assignment, head),
        control_curve=measured.control_curve if measured else (),
        random_labels=measured.random_labels if measured else None,
        held_out_accuracy=learned.held_out_accuracy,
        card=card,
        card_markdown=card_markdown(card, metrics),
        finetune_skipped=learned.finetune_skipped,
        held_out=held_out,
    )


def _plan(recipe: Recipe, image_count: int, threads: int) -> dict[str, float]:
    """Returns the planned duration of each phase in seconds, in order."""
    if recipe.task is Task.EMBEDDING:
        return {"features": SECONDS_TO_EXPORT, "export": SECONDS_TO_EXPORT}
    plan = {
        "features": image_count * SECONDS_PER_IMAGE / threads,
        "head": image_count * SECONDS_PER_LABEL_IN_HEAD,
    }
    if recipe.finetune is not None:
        plan["finetune"] = recipe.finetune.epochs * image_count * SECONDS_PER_TUNED_IMAGE / threads
    return {**plan, "evaluate": SECONDS_TO_EVALUATE, "export": SECONDS_TO_EXPORT}

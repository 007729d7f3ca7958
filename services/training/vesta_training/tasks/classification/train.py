"""A training from labelled examples to an evaluated model file. `train` is the entry point."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from threadpoolctl import threadpool_limits

from vesta_training.errors import TooFewLabelsError
from vesta_training.example import Example, Split
from vesta_training.features.backbone import find_backbone
from vesta_training.metrics.comparison import compare
from vesta_training.metrics.evaluation import measure
from vesta_training.metrics.predictions import over_concepts
from vesta_training.models.export import Export, export_backbone, export_model
from vesta_training.models.model_file import ModelFile, read_model
from vesta_training.progress import ProgressUpdate, Reporter, ignore_progress
from vesta_training.recipes.choices import Task
from vesta_training.recipes.recipe import Recipe
from vesta_training.tasks.assignment import Assignment, Dependencies, Trained, describe_excluded, usable_examples
from vesta_training.tasks.classification.held_out import held_out_predictions
from vesta_training.tasks.classification.learn import Learned, learn
from vesta_training.tasks.classification.stage import Stage
from vesta_training.tasks.result import Evaluated, Learning, trained

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
        missing = ONLY_EMBEDS if assignment.champion is not None else assignment.champion_missing
        unmeasured = Evaluated(metrics_missing_reason=NO_CONCEPTS, comparison_missing=missing)
        export = _export(Learned(None, base, {}))
        return trained(assignment, dependencies, backbone, usable, excluded, Learning({}), export, unmeasured)
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
    evaluated = _evaluate(assignment, learned, test)
    learning = Learning(
        learned.facts, held_out_accuracy=learned.held_out_accuracy, finetune_skipped=learned.finetune_skipped
    )
    return trained(assignment, dependencies, backbone, usable, excluded, learning, _export(learned), evaluated)


def _evaluate(assignment: Assignment, learned: Learned, test: Sequence[Example]) -> Evaluated:
    assert learned.head is not None
    choices, seed = assignment.recipe.evaluation, assignment.seed
    champion = read_model(assignment.champion.path) if assignment.champion is not None else None
    missing = _incomparable(assignment, champion, test)
    held_out = held_out_predictions(assignment, learned.stage, learned.head)
    if not test:
        return Evaluated(metrics_missing_reason=NO_TEST_LABELS, comparison_missing=missing, held_out=held_out)
    predictions = learned.stage.predictions(learned.head, test)
    champion_predictions, comparison = None, None
    if champion is not None and not missing:
        assert assignment.champion is not None
        assert champion.head is not None
        stage = replace(learned.stage, path=assignment.champion.path, embedding_digest=champion.embedding_digest)
        champion_predictions = over_concepts(
            stage.predictions(champion.head, test), predictions.concepts, predictions.truth
        )
        comparison = compare(
            predictions, champion_predictions, choices, champion_name=assignment.champion.name, seed=seed
        )
    return Evaluated(
        metrics=measure(predictions, choices, seed=seed),
        predictions=predictions,
        champion_predictions=champion_predictions,
        comparison=comparison,
        comparison_missing=missing,
        held_out=held_out,
    )


def _incomparable(assignment: Assignment, champion: ModelFile | None, test: Sequence[Example]) -> str:
    """Returns why challenger and champion cannot be compared, with a suggested fix; empty if they can, or if there is no champion."""
    if assignment.champion is None or champion is None:
        return assignment.champion_missing
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


def _export(learned: Learned) -> Export:
    stage = learned.stage
    stage.report.begin("export", 1)
    export = export_model(
        stage.path, learned.head, stage.embedding_digest, stage.dependencies.run_folder / "model.onnx"
    )
    stage.report.step(1, 1)
    return export


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

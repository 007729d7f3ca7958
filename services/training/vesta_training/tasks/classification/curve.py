"""The learning curve of random labels of images; see `TrainingTask.measure_curve`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from threadpoolctl import threadpool_limits

from vesta_training.example import Array, Example, Split, label_matrix
from vesta_training.features.backbone import find_backbone
from vesta_training.metrics.learning_curve import learning_curve
from vesta_training.metrics.predictions import Labels
from vesta_training.metrics.random_labels import random_labels
from vesta_training.models.export import export_backbone
from vesta_training.models.model_file import read_model
from vesta_training.progress import ProgressUpdate, Reporter
from vesta_training.recipes.choices import HeadChoices
from vesta_training.tasks.assignment import Assignment, ControlCurve, Dependencies, usable_examples
from vesta_training.tasks.classification.stage import Stage


def measure_curve(
    assignment: Assignment, dependencies: Dependencies, model: Path, progress: Callable[[ProgressUpdate], None]
) -> ControlCurve:
    """Measures the curve on features before fine-tuning, because fine-tuning has used labels that are not random."""
    with threadpool_limits(limits=1, user_api="blas"):
        return _measure_curve(assignment, dependencies, model, progress)


def _measure_curve(
    assignment: Assignment, dependencies: Dependencies, model: Path, progress: Callable[[ProgressUpdate], None]
) -> ControlCurve:
    report = Reporter(progress, dependencies.clock, {})
    report.begin("curve")
    backbone = find_backbone(assignment.recipe.backbone, dependencies.weights_file)
    base = Stage(dependencies, report, export_backbone(backbone, dependencies.folder), backbone.digest)
    usable, _ = usable_examples(assignment)
    control = [example for example in usable if example.split is not Split.TEST and example.control]
    test = [example for example in usable if example.split is Split.TEST]

    def labelled(examples: Sequence[Example]) -> tuple[Array, Labels]:
        return base.embed(examples), label_matrix(examples, assignment.concepts)

    curve = learning_curve(
        labelled(control),
        labelled(test),
        assignment.concepts,
        assignment.recipe.task,
        assignment.recipe.head or HeadChoices(),
        learns_from_test=assignment.test_split_is_random,
        draws=assignment.recipe.evaluation.control_curve_draws,
        seed=assignment.seed,
        measured=report.step,
    )
    trained = read_model(model)
    assert trained.head is not None
    predictions = Stage(dependencies, report, model, trained.embedding_digest).predictions(trained.head, test)
    points = tuple(curve.points) if curve else ()
    return ControlCurve(points, random_labels(curve, predictions.right, seed=assignment.seed))

"""The learning curve of random labels of detectors; see `TrainingTask.measure_curve`."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from vesta_training.example import Split
from vesta_training.features.backbone import find_backbone
from vesta_training.metrics.learning_curve import curve_counts
from vesta_training.metrics.objects import ObjectPredictions, Objects
from vesta_training.metrics.precision_curve import PrecisionCurve, Solved, solve
from vesta_training.models.model_file import read_model
from vesta_training.progress import ProgressUpdate, Reporter
from vesta_training.recipes.choices import DetectionChoices
from vesta_training.tasks.assignment import Assignment, ControlCurve, Dependencies
from vesta_training.tasks.detection.detector import predictions_of
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.detection.learn import Learner
from vesta_training.tasks.detection.starts import start_of, untried_starts
from vesta_training.tasks.views.parallel_fits import Running, parallel_fits
from vesta_training.tasks.views.training import learned_from, usable_shapes

FOLDS = 2
FoundAt = dict[int, Objects]
"""What is found in test items, by their positions."""
ITEMS_MAX = 500
"""Maximum number of test items, and of random labels. More take minutes and change little."""


def measure_curve(
    assignment: Assignment, dependencies: Dependencies, model: Path, progress: Callable[[ProgressUpdate], None]
) -> ControlCurve:
    """Measures the curve of labels of the control arm and, cross-fitted, of the test split, and compares it with all known labels.

    Detectors see one view of each image, and take the steps of the recipe's `curve_steps`. They start from the weights of the model, which
    is compared by a detector of as few steps that stands for it.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        choices = assignment.recipe.detection or DetectionChoices()
        usable, _ = usable_shapes(assignment, BoxedExample)
        known = learned_from(usable, choices, assignment.seed)
        test = [example for example in usable if example.split is Split.TEST]
        report = Reporter(progress, dependencies.clock, {})
        report.begin("curve")
        backbone = find_backbone(assignment.recipe.backbone, dependencies.weights_file)
        starts = untried_starts(assignment, dependencies, backbone, len(known))
        learner = start_of(starts, read_model(model)).learner
        solved = control_curve(replace(learner, views=replace(learner.views, count=1)), known, test, report)
        return ControlCurve(solved.points, solved.random_labels)


def control_curve(
    learner: Learner, known: Sequence[BoxedExample], test: Sequence[BoxedExample], report: Reporter
) -> Solved:
    """Returns the curve, and the comparison with all known labels.

    Args:
        learner: with one view of each image.
        known: the examples that the model has learned from.
        test: the examples of the test split; at most 500 are predicted.
    """
    assignment = learner.assignment
    generator = np.random.default_rng(assignment.seed)
    test = [test[int(position)] for position in np.sort(generator.permutation(len(test))[:ITEMS_MAX])]
    control = [example for example in known if example.control]
    fold_count = min(FOLDS, len(test)) if assignment.test_split_is_random else 1
    learned_count = len(test) - -(-len(test) // fold_count) if fold_count else 0
    counts = [count for count in curve_counts(len(control) + learned_count) if count <= ITEMS_MAX]
    if not counts or not test:
        return solve(None, None, seed=assignment.seed)
    learner.views.compute([*known, *test], learner.dependencies, report)
    folds, found = [], []
    with parallel_fits(learner.dependencies, report.step) as fits:

        def start(labelled: Sequence[BoxedExample], positions: Sequence[int], name: str) -> "Future[FoundAt]":
            own = {position: test[position] for position in positions}
            return fits.start(learner.choices.curve_steps, partial(_find, learner, labelled, own, name))

        model = start(known, range(len(test)), "curve-model")
        for draw in range(assignment.recipe.evaluation.control_curve_draws):
            fold_of = generator.permutation(len(test)) % fold_count
            of_counts: list[list[Future[FoundAt]]] = [[] for _ in counts]
            for fold in range(fold_count):
                others = [one for one, own in zip(test, fold_of, strict=True) if own != fold] if fold_count > 1 else []
                labelled = [*control, *others]
                order = [labelled[int(position)] for position in generator.permutation(len(labelled))]
                positions = np.flatnonzero(fold_of == fold).tolist()
                for of_count, count in zip(of_counts, counts, strict=True):
                    of_count.append(start(order[:count], positions, f"curve-{draw}-{fold}-{count}"))
            folds.append(fold_of)
            found.append(of_counts)
        predictions = tuple(tuple(_predictions(learner, test, one) for one in of_counts) for of_counts in found)
    curve = PrecisionCurve(tuple(counts), tuple(folds), predictions)
    return solve(curve, _predictions(learner, test, [model]), seed=assignment.seed)


def _find(
    learner: Learner, labelled: Sequence[BoxedExample], test: Mapping[int, BoxedExample], name: str, running: Running
) -> FoundAt:
    """Returns what a detector that has learned from some labels finds in test items; nothing if it has no box to learn from."""
    if not any(len(example.boxes) for example in labelled):
        return {position: Objects(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.zeros(0)) for position in test}
    detector = learner.fit(labelled, learner.choices.curve_steps, name, running)
    keys = [learner.views.whole(example) for example in test.values()]
    return dict(zip(test, detector.find(list(test.values()), keys, learner.maps), strict=True))


def _predictions(
    learner: Learner, test: Sequence[BoxedExample], parts: Sequence["Future[FoundAt]"]
) -> ObjectPredictions:
    """Returns the predictions for all test items, from those of parts of them."""
    concepts = learner.assignment.concepts
    found = {position: objects for part in parts for position, objects in part.result().items()}
    return predictions_of(test, [found[position] for position in range(len(test))], concepts, (0.5,) * len(concepts))

"""The learning curve of random labels of shapes; see `TrainingTask.measure_curve`. Boxes, masks and maps share it."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from vesta_training.example import Example, Split
from vesta_training.metrics.draws import DrawnMetric
from vesta_training.metrics.learning_curve import curve_counts
from vesta_training.metrics.shape_curve import ShapeCurve, Solved, solve
from vesta_training.progress import ProgressUpdate, Reporter
from vesta_training.recipes.choices import MapHeadChoices
from vesta_training.tasks.assignment import Assignment, ControlCurve, Dependencies
from vesta_training.tasks.views.parallel_fits import Running, parallel_fits
from vesta_training.tasks.views.training import learned_from, usable_shapes
from vesta_training.tasks.views.view_maps import ViewMaps

FOLDS = 2
ITEMS_MAX = 500
"""Maximum number of test items, and of random labels. More take minutes and change little."""

Shaped = TypeVar("Shaped", bound=Example)
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class CurveModels(Generic[Shaped, Found]):
    """How the models of a curve are fitted.

    Attributes:
        views: one of each image.
        steps: of each fit.
        find: fits a model to labelled examples, and returns what it predicts for each of other examples. The text names the fit.
        measure: returns the predictions for test items with what is found in each.
    """

    views: ViewMaps
    steps: int
    find: Callable[[Sequence[Shaped], Sequence[Shaped], str, Running], Sequence[Found]]
    measure: Callable[[Sequence[Shaped], Sequence[Found]], DrawnMetric]


def measured_curve(
    kind: type[Shaped],
    choices: MapHeadChoices,
    assignment: Assignment,
    dependencies: Dependencies,
    progress: Callable[[ProgressUpdate], None],
    models_of: Callable[[int, Reporter], CurveModels[Shaped, Found]],
) -> ControlCurve:
    """Measures the curve of the labels of the control arm.

    Args:
        kind: of the examples.
        choices: of the recipe.
        models_of: returns how models are fitted, given the number of examples that the model of the run has learned from.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        usable, _ = usable_shapes(assignment, kind)
        known = learned_from(usable, choices, assignment.seed)
        test = [example for example in usable if example.split is Split.TEST]
        report = Reporter(progress, dependencies.clock, {})
        report.begin("curve")
        solved = _solved_curve(assignment, dependencies, report, known, test, models_of(len(known), report))
        return ControlCurve(solved.points, solved.random_labels)


def _solved_curve(
    assignment: Assignment,
    dependencies: Dependencies,
    report: Reporter,
    known: Sequence[Shaped],
    test: Sequence[Shaped],
    models: CurveModels[Shaped, Found],
) -> Solved:
    """Measures the curve of labels of the control arm and, cross-fitted, of the test split, and compares it with all known labels.

    Args:
        known: the examples that the model of the run has learned from.
        test: the examples of the test split; at most 500 are predicted.
    """
    generator = np.random.default_rng(assignment.seed)
    test = [test[int(position)] for position in np.sort(generator.permutation(len(test))[:ITEMS_MAX])]
    control = [example for example in known if example.control]
    fold_count = min(FOLDS, len(test)) if assignment.test_split_is_random else 1
    learned_count = len(test) - -(-len(test) // fold_count) if fold_count else 0
    counts = [count for count in curve_counts(len(control) + learned_count) if count <= ITEMS_MAX]
    if not counts or not test:
        return solve(None, None, seed=assignment.seed)
    models.views.compute([*known, *test], dependencies, report)
    folds, fitted = [], []
    with parallel_fits(dependencies, report.step) as fits:

        def start(labelled: Sequence[Shaped], positions: Sequence[int], name: str) -> _Part[Found]:
            own = [test[position] for position in positions]
            return _Part(positions, fits.start(models.steps, partial(models.find, labelled, own, name)))

        model = start(known, range(len(test)), "curve-model")
        for draw in range(assignment.recipe.evaluation.control_curve_draws):
            fold_of = generator.permutation(len(test)) % fold_count
            of_counts: list[list[_Part[Found]]] = [[] for _ in counts]
            for fold in range(fold_count):
                others = [one for one, own in zip(test, fold_of, strict=True) if own != fold] if fold_count > 1 else []
                labelled = [*control, *others]
                order = [labelled[int(position)] for position in generator.permutation(len(labelled))]
                positions = np.flatnonzero(fold_of == fold).tolist()
                for of_count, count in zip(of_counts, counts, strict=True):
                    of_count.append(start(order[:count], positions, f"curve-{draw}-{fold}-{count}"))
            folds.append(fold_of)
            fitted.append(of_counts)
        predictions = tuple(tuple(models.measure(test, _in_order(parts)) for parts in draw) for draw in fitted)
        measured = models.measure(test, _in_order([model]))
    return solve(ShapeCurve(tuple(counts), tuple(folds), predictions), measured, seed=assignment.seed)


@dataclass(frozen=True, slots=True)
class _Part(Generic[Found]):
    """What a fit finds in the test items at these positions."""

    positions: Sequence[int]
    found: "Future[Sequence[Found]]"


def _in_order(parts: Sequence[_Part[Found]]) -> list[Found]:
    """Returns what is found in all test items."""
    found = {position: one for part in parts for position, one in zip(part.positions, part.found.result(), strict=True)}
    return [found[position] for position in range(len(found))]

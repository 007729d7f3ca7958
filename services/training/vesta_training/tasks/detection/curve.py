"""The learning curve of random labels of detectors, in mAP; see `TrainingTask.measure_curve`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vesta_training.features.backbone import find_backbone
from vesta_training.metrics.average_precision import MatchedPredictions
from vesta_training.metrics.objects import Objects
from vesta_training.models.model_file import read_model
from vesta_training.progress import ProgressUpdate, Reporter
from vesta_training.recipes.choices import DetectionChoices
from vesta_training.tasks.assignment import Assignment, ControlCurve, Dependencies
from vesta_training.tasks.detection.detector import predictions_of
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.detection.learn import Learner
from vesta_training.tasks.detection.starts import start_of, untried_starts
from vesta_training.tasks.views.curve import CurveModels, measured_curve
from vesta_training.tasks.views.parallel_fits import Running
from vesta_training.tasks.views.uncalibrated import uncalibrated_thresholds


def measure_curve(
    assignment: Assignment, dependencies: Dependencies, model: Path, progress: Callable[[ProgressUpdate], None]
) -> ControlCurve:
    """Measures the curve with detectors that see one view of each image, and take the steps of the recipe's `curve_steps`.

    They start from the weights of the model, which is compared by a detector of as few steps that stands for it.
    """
    choices = assignment.recipe.detection or DetectionChoices()

    def models_of(known_count: int, _: Reporter) -> CurveModels[BoxedExample, Objects]:
        backbone = find_backbone(assignment.recipe.backbone, dependencies.weights_file)
        starts = untried_starts(assignment, dependencies, backbone, known_count)
        learner = start_of(starts, read_model(model)).learner
        return _models(replace(learner, views=replace(learner.views, count=1)))

    return measured_curve(BoxedExample, choices, assignment, dependencies, progress, models_of)


def _models(learner: Learner) -> CurveModels[BoxedExample, Objects]:
    concepts, steps = learner.assignment.concepts, learner.choices.curve_steps

    def find(
        labelled: Sequence[BoxedExample], others: Sequence[BoxedExample], name: str, running: Running
    ) -> list[Objects]:
        if not any(example.has_objects for example in labelled):  # a detector without a box to learn from finds nothing
            return [Objects(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.zeros(0)) for _ in others]
        detector = learner.fit(labelled, steps, name, running)
        return detector.find(others, [learner.views.whole(example) for example in others], learner.maps)

    def measure(test: Sequence[BoxedExample], found: Sequence[Objects]) -> MatchedPredictions:
        return MatchedPredictions.of(predictions_of(test, found, concepts, uncalibrated_thresholds(len(concepts))))

    return CurveModels(learner.views, steps, find, measure)

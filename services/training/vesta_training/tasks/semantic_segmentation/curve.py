"""The learning curve of random labels of segmenters, in mIoU; see `TrainingTask.measure_curve`."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from vesta_training.features.backbone import find_backbone, load_network
from vesta_training.features.onnx_graph import FINE_STRIDES
from vesta_training.metrics.segmentation import MapPredictions, joined
from vesta_training.progress import ProgressUpdate, Reporter
from vesta_training.recipes.choices import SegmentationChoices
from vesta_training.tasks.assignment import Assignment, ControlCurve, Dependencies
from vesta_training.tasks.semantic_segmentation.examples import MaskedExample
from vesta_training.tasks.semantic_segmentation.learn import Learner
from vesta_training.tasks.views.curve import CurveModels, measured_curve
from vesta_training.tasks.views.parallel_fits import Running
from vesta_training.tasks.views.view_maps import view_maps


def measure_curve(
    assignment: Assignment, dependencies: Dependencies, progress: Callable[[ProgressUpdate], None]
) -> ControlCurve:
    """Measures the curve with segmenters that see one view of each image, and take the steps of the recipe's `curve_steps`.

    The model is compared by a segmenter of as few steps that stands for it.
    """
    choices = assignment.recipe.segmentation or SegmentationChoices()

    def models_of(known_count: int, report: Reporter) -> CurveModels[MaskedExample, MapPredictions]:
        backbone = find_backbone(assignment.recipe.backbone, dependencies.weights_file)
        network = load_network(backbone)
        views = view_maps(network, backbone, choices, known_count, dependencies.folder, FINE_STRIDES)
        return _models(Learner(assignment, dependencies, report, replace(views, count=1)))

    return measured_curve(MaskedExample, choices, assignment, dependencies, progress, models_of)


def _models(learner: Learner) -> CurveModels[MaskedExample, MapPredictions]:
    steps = learner.choices.curve_steps

    def find(
        labelled: Sequence[MaskedExample], others: Sequence[MaskedExample], name: str, running: Running
    ) -> list[MapPredictions]:
        segmenter = learner.fit(labelled, steps, name, running)
        found = segmenter.find(others, [learner.views.whole(example) for example in others], learner.maps)
        return [found.selected(np.arange(len(others)) == position) for position in range(len(others))]

    return CurveModels(learner.views, steps, find, lambda _, found: joined(found))

"""A training from images with masks to an evaluated segmenter."""

from collections.abc import Callable
from typing import Final

from threadpoolctl import threadpool_limits
from vesta_common.media.segmentation_maps import CONCEPTS_MAX

from vesta_training.errors import LearningError, TooFewLabelsError
from vesta_training.features.backbone import find_backbone, load_network
from vesta_training.features.onnx_graph import FINE_STRIDES
from vesta_training.metrics.segmentation import compare_maps, measure_maps
from vesta_training.progress import ProgressUpdate, Reporter
from vesta_training.recipes.choices import SegmentationChoices
from vesta_training.tasks.assignment import Assignment, Dependencies, Trained, describe_excluded
from vesta_training.tasks.semantic_segmentation.examples import MaskedExample
from vesta_training.tasks.semantic_segmentation.export import export_segmenter
from vesta_training.tasks.semantic_segmentation.held_out import held_out_predictions
from vesta_training.tasks.semantic_segmentation.learn import Learner
from vesta_training.tasks.semantic_segmentation.segmenter import find_with_file
from vesta_training.tasks.views.measure import Measurement
from vesta_training.tasks.views.training import learned_from, plan, result, usable_shapes
from vesta_training.tasks.views.view_maps import view_maps

MEASUREMENT: Final = Measurement(MaskedExample, find_with_file, held_out_predictions, measure_maps, compare_maps)


def train(assignment: Assignment, dependencies: Dependencies, progress: Callable[[ProgressUpdate], None]) -> Trained:
    """Trains, evaluates and exports a segmenter; see `TrainingTask.train`."""
    with threadpool_limits(limits=1, user_api="blas"):
        return _train(assignment, dependencies, progress)


def _train(assignment: Assignment, dependencies: Dependencies, progress: Callable[[ProgressUpdate], None]) -> Trained:
    choices = assignment.recipe.segmentation or SegmentationChoices()
    usable, excluded = usable_shapes(assignment, MaskedExample)
    known = learned_from(usable, choices, assignment.seed)
    if len(assignment.concepts) > CONCEPTS_MAX:
        raise LearningError(
            f"the taxonomy has {len(assignment.concepts)} concepts, the maximum for semantic segmentation is {CONCEPTS_MAX}"
        )
    if not any(example.masks for example in known):
        left_out = describe_excluded(excluded)
        raise TooFewLabelsError(
            "no item of the train split has a mask"
            + (f"; excluded are {left_out}" if left_out else "")
            + ". Draw the pixels of concepts on some images, and create a new snapshot"
        )
    report = Reporter(progress, dependencies.clock, plan(choices, len(known), dependencies.threads, only_folds=True))
    report.begin("features")
    backbone = find_backbone(assignment.recipe.backbone, dependencies.weights_file)
    network = load_network(backbone)
    views = view_maps(network, backbone, choices, len(known), dependencies.folder, FINE_STRIDES)
    views.compute(known, dependencies, report)
    learned = Learner(assignment, dependencies, report, views).learn(known)
    report.begin("export", 1)
    export = export_segmenter(network, learned.segmenter, backbone, dependencies.run_folder / "model.onnx")
    report.begin("evaluate")
    measured = MEASUREMENT.of(export.path, assignment, dependencies)
    report.step(1, 1)
    return result(assignment, dependencies, backbone, usable, excluded, learned, export, measured)

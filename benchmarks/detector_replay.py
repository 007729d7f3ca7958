"""Labelling of a pool, replayed without a platform: detectors that learn from chosen images, and what they predict for the others.

Feature maps of all images are computed once. Each detector is fitted from scratch by the training service's code, its scores are calibrated
by cross-fitting, and its objects become predictions by the serving service's code.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from photographs import Photograph, Photographs
from PIL import Image
from vesta_common.media.model_input import SQUARE, InputFormat, place
from vesta_common.media.model_pictures import model_pixels
from vesta_common.media.model_signatures import OBJECTS
from vesta_contracts.common.v1 import Prediction
from vesta_datasets.selection.pool import Floats
from vesta_serving.task_types.detection import Detection
from vesta_serving.task_types.policy import Policy
from vesta_serving.task_types.serving_task import Vocabulary
from vesta_training.example import Array, Pixels, Split
from vesta_training.features.backbone import find_backbone
from vesta_training.metrics.detection import mean_precision_50
from vesta_training.metrics.objects import Objects
from vesta_training.progress import Reporter, ignore_progress
from vesta_training.recipes.recipe import Recipe, builtin_recipe
from vesta_training.tasks.assignment import Assignment, Dependencies
from vesta_training.tasks.detection.detector import Detector, predictions_of
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.detection.learn import Learner
from vesta_training.tasks.detection.starts import untried_starts
from vesta_training.tasks.views.parallel_fits import parallel_fits

SHORTER = {"views": 4, "calibration_folds": 2, "pretrained": "none"}
"""Choices of the default recipe that are replaced to save time. Its steps by number of images are kept: with equal steps for all, more
images hardly raise mAP.
"""
BOOTSTRAP_DRAWS = 100
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Replay:
    """A pool with hidden truth, a test part, and the learner.

    Attributes:
        learner: with the maps of all images.
        pool: N examples.
        embeddings: `(N, D)` of the pool, rows of unit length.
    """

    learner: Learner
    pool: tuple[BoxedExample, ...]
    test: tuple[BoxedExample, ...]
    embeddings: Floats

    def box_count(self, rows: Rows) -> int:
        """Returns the number of boxes of images of the pool."""
        return sum(len(self.pool[row].boxes) for row in rows)

    def train(self, rows: Rows, *, calibrated: bool) -> Detector:
        """Returns a detector that has learned from images of the pool.

        Args:
            calibrated: whether its scores are calibrated, which its mAP hardly depends on.
        """
        examples = [self.pool[row] for row in rows]
        # The examples are part of the fingerprint of the checkpoint, which would otherwise be that of other images.
        learner = replace(self.learner, assignment=replace(self.learner.assignment, examples=tuple(examples)))
        with parallel_fits(learner.dependencies, ignore_progress) as fits:
            model = learner.start_model(examples, fits)
            folds = learner.start_folds(examples, fits) if calibrated else []
            return learner.learned(examples, model, learner.hold_out(examples, folds)).detector

    def quality(self, detector: Detector) -> float:
        """Returns the mAP@50 on the test part."""
        found = predictions_of(self.test, self._find(detector, self.test), detector.concepts, detector.thresholds)
        estimate = mean_precision_50(found, self.learner.assignment.recipe.evaluation, seed=0)
        if estimate is None:
            raise ValueError("no test image has a box")
        return estimate.value

    def predictions(self, detector: Detector, rows: Rows) -> list[Prediction]:
        """Returns what a deployment of the detector predicts for images of the pool."""
        examples = [self.pool[row] for row in rows]
        vocabulary = Vocabulary("", detector.concepts, detector.thresholds, detector.selection.objects_max)
        found = self._find(detector, examples)
        return [_prediction(objects, one, vocabulary) for objects, one in zip(found, examples, strict=True)]

    def _find(self, detector: Detector, examples: Sequence[BoxedExample]) -> list[Objects]:
        keys = [self.learner.views.whole(example) for example in examples]
        return detector.find(examples, keys, self.learner.maps)


class _NoFeatures:
    """Stores no embeddings; detectors need none."""

    def get_many(self, embedding_digest: str, image_sha256s: Sequence[str]) -> Mapping[str, Array]:  # noqa: ARG002
        return {}

    def put_many(self, embedding_digest: str, embeddings: Mapping[str, Array]) -> None:
        """Does nothing."""


def prepare(
    photographs: Photographs, folder: Path, seed: int, threads: int, choices: Mapping[str, object] = SHORTER
) -> Replay:
    """Computes the feature maps of images, as far as they are not in the folder, and returns a replay.

    Args:
        folder: of the maps, some hundred megabytes.
        seed: of all fits.
        choices: of the default recipe that are replaced.
    """
    pool = tuple(_example(photograph, Split.TRAIN) for photograph in photographs.pool)
    test = tuple(_example(photograph, Split.TEST) for photograph in photographs.test)
    concepts = tuple(photographs.labels)
    assignment = Assignment(_recipe(choices), concepts=concepts, seed=seed)
    files = {example.image_sha256: Path(example.item) for example in (*pool, *test)}
    run_folder = folder / f"run-{photographs.name}-{seed}"
    run_folder.mkdir(parents=True, exist_ok=True)

    def pixels(sha256: str, declared: InputFormat = SQUARE) -> Pixels:
        return model_pixels(files[sha256].read_bytes(), declared)

    dependencies = Dependencies(
        pixels=pixels,
        features=_NoFeatures(),
        weights_file=_no_weights_file,
        folder=folder,
        run_folder=run_folder,
        threads=threads,
    )
    report = Reporter(ignore_progress, dependencies.clock, {})
    backbone = find_backbone(assignment.recipe.backbone, dependencies.weights_file)
    learner = untried_starts(assignment, dependencies, backbone, len(pool))[0].learner
    learner.views.compute(pool, dependencies, report)
    replace(learner.views, count=1).compute(test, dependencies, report)
    return Replay(learner, pool, test, _embeddings(learner, pool))


def _no_weights_file(sha256: str) -> Path:
    raise LookupError(sha256)


def _recipe(choices: Mapping[str, object]) -> Recipe:
    shipped = builtin_recipe("detection")
    assert shipped.detection is not None
    return replace(
        shipped,
        detection=shipped.detection.model_copy(update=choices),
        evaluation=shipped.evaluation.model_copy(update={"bootstrap_draws": BOOTSTRAP_DRAWS}),
    )


def _example(photograph: Photograph, split: Split) -> BoxedExample:
    with Image.open(photograph.path) as image:
        width, height = image.size
    corners = [
        (one.box.x_min_px, one.box.y_min_px, one.box.x_max_px, one.box.y_max_px) for one in photograph.annotations
    ]
    shares = np.array(corners, np.float32).reshape(-1, 4) / np.array([width, height] * 2, np.float32)
    boxes = shares.clip(0, 1)
    visible = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1)).tolist()
    concepts = tuple(photograph.annotations[place].concept for place in visible)
    return BoxedExample(
        item=str(photograph.path),
        image_sha256=hashlib.sha256(photograph.path.read_bytes()).hexdigest(),
        concepts=tuple(sorted(set(concepts))),
        split=split,
        boxes=boxes[visible],
        box_concepts=concepts,
        width_px=width,
        height_px=height,
    )


def _embeddings(learner: Learner, examples: Sequence[BoxedExample]) -> Floats:
    """Returns `(N, D)`: the mean of the coarsest map of each image, of unit length."""
    rows = [
        learner.maps.load([learner.views.whole(one)])[-1][0].astype(np.float32).mean(axis=(1, 2)) for one in examples
    ]
    means = np.stack(rows)
    units: Floats = means / np.linalg.norm(means, axis=1, keepdims=True)
    return units


def _prediction(objects: Objects, example: BoxedExample, vocabulary: Vocabulary) -> Prediction:
    rows = np.column_stack([objects.boxes_xyxy_px, objects.scores, objects.numbers]).astype(np.float32)
    whole = place(InputFormat(example.height_px, example.width_px), example.width_px, example.height_px)
    return Detection().prediction({OBJECTS: rows}, vocabulary, Policy(), whole)

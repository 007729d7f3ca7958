"""Detection in the demo: boxes with a concept."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType

from annotation_formats import read_boxes
from boxes import SizePx, clipped, image_size, mistakes, pairs
from photographs import Photograph, Photographs
from PIL import Image, ImageDraw
from samples import Download
from scenes import write_scenes
from vesta_contracts.annotation.v1 import Review, Task
from vesta_contracts.common.v1 import Annotation, Prediction
from vesta_contracts.training.v1 import Estimate, Metrics

from task_types.demo_task import Annotations, Answer, DemoTask
from task_types.marks import RIGHT, TRUTH, WRONG, tag

JITTER_SHARE = 0.03
"""The standard deviation of each side of a drawn box, as a share of the box."""
MISS_SHARE, CONFUSE_SHARE = 0.04, 0.03
"""Shares of the true objects that are left out, or get another concept."""
ADD_SHARE = 0.03
"""The share of images in which an object is drawn where none is."""


class Detection(DemoTask):
    """Boxes of a data set of the user, or of synthetic scenes."""

    recipe = "detection"
    quick_changes = MappingProxyType(
        {
            "detection.views": 4,
            "detection.epochs": 12,
            "detection.steps_min": 200,
            "detection.steps_max": 600,
            "detection.calibration_folds": 2,
        }
    )
    metric = "mAP@50"
    instructions = "Draw a box around each object, as close to it as possible."
    error_rates = (
        f"corners are off by {JITTER_SHARE:.0%} of the box, {MISS_SHARE:.0%} of the objects are missed and {CONFUSE_SHARE:.0%} confused, "
        f"and {ADD_SHARE:.0%} of the images get one too many"
    )
    unit = "boxes"

    def samples(self, folder: Path, report: Callable[[str], None], download: Download) -> Photographs:  # noqa: ARG002
        report(
            "Without data=FOLDER, objects are synthetic: scikit-learn's scanned digits, placed at random on a textured ground."
        )
        found = read_boxes(write_scenes(folder / "scenes"))
        assert found is not None  # written by this version or an earlier one
        return found[1]

    def quality(self, metrics: Metrics) -> Estimate:
        return metrics.mean_average_precision_50

    def answer(self, photograph: Photograph, concepts: Sequence[str], draw: random.Random) -> Answer:
        truth = photograph.annotations
        size_px = image_size(photograph.path)
        drawn = [_drawn(one, concepts, size_px, draw) for one in truth if draw.random() >= MISS_SHARE]
        if draw.random() < ADD_SHARE:
            drawn.append(_invented(concepts, size_px, draw))
        annotations = [one for one in drawn if one is not None]
        return Answer(annotations, mistakes(truth, annotations))

    def review(self, task: Task, truth: Annotations) -> Review:
        """Decides the disputed objects alone: each becomes the true object at its place, or is dropped."""
        agreed = {row for row, _ in pairs(truth, task.agreed, same_concept=False)}
        left = [one for row, one in enumerate(truth) if row not in agreed]
        disputed = [one.suggestion for one in task.disagreements if one.disputed]
        decided = [left[row] for row, _ in pairs(left, disputed, same_concept=False)]
        return Review(decision=Review.RESOLVE, annotations=decided)

    def is_right(self, truth: Annotations, found: Annotations) -> bool:
        return mistakes(truth, found) == 0

    def predicted(self, prediction: Prediction) -> list[Annotation]:
        thresholds = {score.concept: score.threshold for score in prediction.scores}
        return [one for one in prediction.annotations if one.score >= thresholds.get(one.concept, 0.0)]

    def quality_without_training(self, drawn: Sequence[Annotations], test: Sequence[Annotations]) -> float | None:
        """0 if no drawn image has an object: a detector that finds nothing."""
        return None if any(drawn) else float(not any(test))

    def draw(self, image: Image.Image, truth: Annotations, found: Annotations) -> None:
        """Frames true objects in white, and predicted ones in green or red with their score."""
        frames = ImageDraw.Draw(image)
        for one in truth:
            frames.rectangle(_place(one), outline=TRUTH, width=1)
        matched = {column for _, column in pairs(truth, found)}
        for column, one in enumerate(found):
            colour = RIGHT if column in matched else WRONG
            frames.rectangle(_place(one), outline=colour, width=2)
            tag(image, (one.box.x_min_px, one.box.y_min_px), f"{one.concept} {one.score:.2f}", colour)


def _drawn(one: Annotation, concepts: Sequence[str], size_px: SizePx, draw: random.Random) -> Annotation | None:
    """Returns an object as an annotator draws it: not exactly, and sometimes with another concept."""
    concept = one.concept
    if len(concepts) > 1 and draw.random() < CONFUSE_SHARE:
        concept = draw.choice([other for other in concepts if other != concept])
    x_min, y_min, x_max, y_max = _place(one)
    width, height = x_max - x_min, y_max - y_min
    corners = (
        x_min + draw.gauss(0, JITTER_SHARE) * width,
        y_min + draw.gauss(0, JITTER_SHARE) * height,
        x_max + draw.gauss(0, JITTER_SHARE) * width,
        y_max + draw.gauss(0, JITTER_SHARE) * height,
    )
    return clipped(concept, corners, size_px)


def _invented(concepts: Sequence[str], size_px: SizePx, draw: random.Random) -> Annotation | None:
    """Returns a box of an eighth to a third of the image's sides at a random place."""
    width, height = (side * draw.uniform(1 / 8, 1 / 3) for side in size_px)
    x, y = draw.uniform(0, size_px[0] - width), draw.uniform(0, size_px[1] - height)
    return clipped(draw.choice(concepts), (x, y, x + width, y + height), size_px)


def _place(one: Annotation) -> tuple[float, float, float, float]:
    return one.box.x_min_px, one.box.y_min_px, one.box.x_max_px, one.box.y_max_px

"""Detection in the demo: boxes with a concept."""

import random
from collections.abc import Sequence

import numpy as np
from annotation_formats import RawObject
from boxes import SizePx, clipped, corners, iou
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scenes import Style
from vesta_contracts.common.v1 import Annotation, TaskType

from task_types.demo_task import Annotations
from task_types.drawn import ADD_SHARE, CONFUSE_SHARE, MISS_SHARE
from task_types.marks import RIGHT, TRUTH, WRONG, tag
from task_types.objects import ObjectDemoTask, random_place

JITTER_SHARE = 0.03
"""The standard deviation of each side of a drawn box, as a share of the box."""


class Detection(ObjectDemoTask):
    """Boxes."""

    task_type = TaskType.TASK_TYPE_DETECTION
    scenes = Style("scenes")
    recipe = "detection"
    metric = "mAP@50"
    instructions = "Draw a box around each object, as close to it as possible."
    error_rates = (
        f"corners are off by {JITTER_SHARE:.0%} of the box, {MISS_SHARE:.0%} of the objects are missed and {CONFUSE_SHARE:.0%} confused, "
        f"and {ADD_SHARE:.0%} of the images get one too many"
    )
    unit = "boxes"

    def annotations(self, objects: Sequence[RawObject], size_px: SizePx) -> list[Annotation]:
        """The parts of boxes that are within the image."""
        boxes = [clipped(one.concept, one.corners, size_px) for one in objects if one.corners is not None]
        return [box for box in boxes if box is not None]

    def overlaps(self, one: Annotations, other: Annotations) -> NDArray[np.float64]:
        return iou(corners(one), corners(other))

    def redrawn(self, one: Annotation, concept: str, size_px: SizePx, draw: random.Random) -> Annotation | None:
        x_min, y_min, x_max, y_max = _place(one)
        width, height = x_max - x_min, y_max - y_min
        sides = (
            x_min + draw.gauss(0, JITTER_SHARE) * width,
            y_min + draw.gauss(0, JITTER_SHARE) * height,
            x_max + draw.gauss(0, JITTER_SHARE) * width,
            y_max + draw.gauss(0, JITTER_SHARE) * height,
        )
        return clipped(concept, sides, size_px)

    def invented(self, concept: str, size_px: SizePx, draw: random.Random) -> Annotation | None:
        return clipped(concept, random_place(size_px, draw), size_px)

    def draw(self, image: Image.Image, truth: Annotations, found: Annotations) -> None:
        """Frames true objects in white, and predicted ones in green or red with their score."""
        frames = ImageDraw.Draw(image)
        for one in truth:
            frames.rectangle(_place(one), outline=TRUTH, width=1)
        matched = {column for _, column in self.pairs(truth, found)}
        for column, one in enumerate(found):
            colour = RIGHT if column in matched else WRONG
            frames.rectangle(_place(one), outline=colour, width=2)
            tag(image, (one.box.x_min_px, one.box.y_min_px), f"{one.concept} {one.score:.2f}", colour)


def _place(one: Annotation) -> tuple[float, float, float, float]:
    return one.box.x_min_px, one.box.y_min_px, one.box.x_max_px, one.box.y_max_px

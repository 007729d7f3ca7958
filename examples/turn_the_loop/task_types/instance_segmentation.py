"""Instance segmentation in the demo: objects with their pixels."""

import random
from collections.abc import Sequence

import numpy as np
from annotation_formats import RawObject
from boxes import SizePx
from masks import mask, mask_ious
from numpy.typing import NDArray
from PIL import Image
from vesta_contracts.common.v1 import Annotation, TaskType

from task_types.demo_task import Annotations
from task_types.drawn_masks import (
    ERROR_RATES,
    SCENES,
    invented_pixels,
    paint_found,
    paint_truth,
    redrawn_pixels,
)
from task_types.marks import RIGHT, WRONG
from task_types.objects import ObjectDemoTask


class InstanceSegmentation(ObjectDemoTask):
    """Masks of objects."""

    task_type = TaskType.TASK_TYPE_INSTANCE_SEGMENTATION
    scenes = SCENES
    recipe = "instance-segmentation"
    metric = "mask mAP@50"
    instructions = "Mark the pixels of each object."
    error_rates = ERROR_RATES
    unit = "masks"

    def annotations(self, objects: Sequence[RawObject], size_px: SizePx) -> list[Annotation]:
        """The masks of the objects."""
        masks = [mask(one.concept, one.pixels(size_px)) for one in objects if one.pixels and not one.is_region]
        return [one for one in masks if one is not None]

    def overlaps(self, one: Annotations, other: Annotations) -> NDArray[np.float64]:
        return mask_ious(one, other)

    def redrawn(self, one: Annotation, concept: str, size_px: SizePx, draw: random.Random) -> Annotation | None:  # noqa: ARG002
        return mask(concept, redrawn_pixels(one, draw))

    def invented(self, concept: str, size_px: SizePx, draw: random.Random) -> Annotation | None:
        return mask(concept, invented_pixels(size_px, draw))

    def draw(self, image: Image.Image, truth: Annotations, found: Annotations) -> None:
        """Outlines true objects in white, and fills predicted ones in green or red, with their score."""
        matched = {column for _, column in self.pairs(truth, found)}
        for column, one in enumerate(found):
            paint_found(image, one, f"{one.concept} {one.score:.2f}", RIGHT if column in matched else WRONG)
        for one in truth:
            paint_truth(image, one)

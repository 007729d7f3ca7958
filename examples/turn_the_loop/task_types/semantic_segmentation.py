"""Semantic segmentation in the demo: one mask per concept."""

import random
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
from annotation_formats import RawObject
from boxes import SizePx, image_size
from masks import joined, mask, mask_ious, masks_of_map, pixels_of
from matching import IOU_MIN
from photographs import Photograph
from PIL import Image
from vesta_contracts.annotation.v1 import Review, Task
from vesta_contracts.common.v1 import Annotation, Prediction, TaskType
from vesta_contracts.training.v1 import Estimate, Metrics

from task_types.demo_task import Annotations, Answer
from task_types.drawn import ADD_SHARE, DrawnTask, seen
from task_types.drawn_masks import (
    ERROR_RATES,
    SCENES,
    invented_pixels,
    paint_found,
    paint_truth,
    redrawn_pixels,
)
from task_types.marks import RIGHT, WRONG


class SemanticSegmentation(DrawnTask):
    """The pixels of each concept."""

    task_type = TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION
    scenes = SCENES
    recipe = "semantic-segmentation"
    quick_changes = MappingProxyType(
        {"segmentation.views": 4, "segmentation.steps_max": 600, "segmentation.calibration_folds": 2}
    )
    metric = "mIoU"
    instructions = "Mark the pixels of each concept."
    error_rates = ERROR_RATES
    unit = "masks"

    def annotations(self, objects: Sequence[RawObject], size_px: SizePx) -> list[Annotation]:
        """One mask per concept: its regions, or else the masks of its objects together."""
        regions = any(one.is_region for one in objects)
        return joined([(o.concept, o.pixels(size_px)) for o in objects if o.pixels and o.is_region == regions])

    def quality(self, metrics: Metrics) -> Estimate:
        return metrics.mean_iou

    def answer(self, photograph: Photograph, concepts: Sequence[str], draw: random.Random) -> Answer:
        truth = photograph.annotations
        drawn = [(concept, redrawn_pixels(one, draw)) for one, concept in seen(truth, concepts, draw)]
        if draw.random() < ADD_SHARE:
            drawn.append((draw.choice(concepts), invented_pixels(image_size(photograph.path), draw)))
        annotations = joined(drawn)
        return Answer(annotations, _mistakes(truth, annotations))

    def review(self, task: Task, truth: Annotations) -> Review:
        """Decides the disputed concepts alone: each gets its true pixels, without those on which the annotators agree, or is dropped."""
        disputed = {one.suggestion.concept for one in task.disagreements if one.disputed}
        agreed = [pixels_of(one) for one in task.agreed]
        decided = []
        for one in truth:
            if one.concept in disputed:
                taken = np.any(agreed, axis=0) if agreed else False
                decided.append(mask(one.concept, pixels_of(one) & ~np.asarray(taken)))
        return Review(decision=Review.RESOLVE, annotations=[one for one in decided if one is not None])

    def is_right(self, truth: Annotations, found: Annotations) -> bool:
        return _mistakes(truth, found) == 0

    def predicted(self, prediction: Prediction) -> list[Annotation]:
        return masks_of_map(prediction.segmentation_map)

    def draw(self, image: Image.Image, truth: Annotations, found: Annotations) -> None:
        """Outlines true pixels in white, and fills predicted ones in green or red, with the concept."""
        right = _right_concepts(truth, found)
        for one in found:
            paint_found(image, one, one.concept, RIGHT if one.concept in right else WRONG)
        for one in truth:
            paint_truth(image, one)


def _right_concepts(truth: Annotations, found: Annotations) -> set[str]:
    """Returns the concepts whose true and found pixels have an IoU of `IOU_MIN` or more."""
    masks = {one.concept: one for one in found}
    return {
        one.concept for one in truth if one.concept in masks and mask_ious([one], [masks[one.concept]])[0, 0] >= IOU_MIN
    }


def _mistakes(truth: Annotations, found: Annotations) -> int:
    """Returns the number of masks that are missing, superfluous, of another concept or at another place."""
    return len(truth) + len(found) - 2 * len(_right_concepts(truth, found))

"""What detection and instance segmentation have in common in the demo: objects are drawn, matched and counted."""

import random
from abc import abstractmethod
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
from boxes import SizePx, image_size
from matching import pairs
from numpy.typing import NDArray
from photographs import Photograph
from vesta.objects import predicted_objects
from vesta_contracts.annotation.v1 import Review, Task
from vesta_contracts.common.v1 import Annotation, Prediction
from vesta_contracts.training.v1 import Estimate, Metrics

from task_types.demo_task import Annotations, Answer
from task_types.drawn import ADD_SHARE, DrawnTask, seen


class ObjectDemoTask(DrawnTask):
    """Any number of objects per image."""

    quick_changes = MappingProxyType(
        {
            "detection.views": 4,
            "detection.epochs": 12,
            "detection.steps_min": 200,
            "detection.steps_max": 600,
            "detection.calibration_folds": 2,
        }
    )

    @abstractmethod
    def overlaps(self, one: Annotations, other: Annotations) -> NDArray[np.float64]:
        """Returns `(N, M)` intersections over unions of N and M objects of one image."""

    @abstractmethod
    def redrawn(self, one: Annotation, concept: str, size_px: SizePx, draw: random.Random) -> Annotation | None:
        """Returns a true object as an annotator draws it, not exactly, with a concept; None if nothing is left of it."""

    @abstractmethod
    def invented(self, concept: str, size_px: SizePx, draw: random.Random) -> Annotation | None:
        """Returns an object of an eighth to a third of the image's sides at a random place."""

    def quality(self, metrics: Metrics) -> Estimate:
        return metrics.mean_average_precision_50

    def answer(self, photograph: Photograph, concepts: Sequence[str], draw: random.Random) -> Answer:
        truth = photograph.annotations
        size_px = image_size(photograph.path)
        drawn = [self.redrawn(one, concept, size_px, draw) for one, concept in seen(truth, concepts, draw)]
        if draw.random() < ADD_SHARE:
            drawn.append(self.invented(draw.choice(concepts), size_px, draw))
        annotations = [one for one in drawn if one is not None]
        return Answer(annotations, self.mistakes(truth, annotations))

    def pairs(self, truth: Annotations, found: Annotations, *, same_concept: bool = True) -> list[tuple[int, int]]:
        """Returns the pairs of a true object and a found one at its place."""
        return pairs(truth, found, self.overlaps(truth, found), same_concept=same_concept)

    def mistakes(self, truth: Annotations, found: Annotations) -> int:
        """Returns the number of objects that are missing, superfluous, of another concept or at another place."""
        return len(truth) + len(found) - 2 * len(self.pairs(truth, found))

    def review(self, task: Task, truth: Annotations) -> Review:
        """Decides the disputed objects alone: each becomes the true object at its place, or is dropped."""
        agreed = {row for row, _ in self.pairs(truth, task.agreed, same_concept=False)}
        left = [one for row, one in enumerate(truth) if row not in agreed]
        disputed = [one.suggestion for one in task.disagreements if one.disputed]
        decided = [left[row] for row, _ in self.pairs(left, disputed, same_concept=False)]
        return Review(decision=Review.RESOLVE, annotations=decided)

    def is_right(self, truth: Annotations, found: Annotations) -> bool:
        return self.mistakes(truth, found) == 0

    def predicted(self, prediction: Prediction) -> list[Annotation]:
        return predicted_objects(prediction)


def random_place(size_px: SizePx, draw: random.Random) -> tuple[float, float, float, float]:
    """Returns x_min, y_min, x_max and y_max of an eighth to a third of the image's sides at a random place."""
    width, height = (side * draw.uniform(1 / 8, 1 / 3) for side in size_px)
    x, y = draw.uniform(0, size_px[0] - width), draw.uniform(0, size_px[1] - height)
    return x, y, x + width, y + height

"""What detection and segmentation have in common in the demo: annotators draw, in images of a data set or in synthetic scenes."""

import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from annotation_formats import RawObject, read_annotated
from boxes import SizePx
from photographs import Photographs
from samples import Download
from scenes import Style, write_scenes
from vesta_contracts.common.v1 import Annotation, TaskType

from task_types.demo_task import Annotations, DemoTask

MISS_SHARE, CONFUSE_SHARE = 0.04, 0.03
"""Shares of the true objects that are left out, or get another concept."""
ADD_SHARE = 0.03
"""The share of images in which an object is drawn where none is."""


class DrawnTask(DemoTask):
    """Shapes of a data set of the user, or of synthetic scenes.

    Attributes:
        task_type: of the datasets.
        scenes: how the synthetic scenes look.
    """

    task_type: ClassVar[TaskType.ValueType]
    scenes: ClassVar[Style]

    @abstractmethod
    def annotations(self, objects: Sequence[RawObject], size_px: SizePx) -> list[Annotation]:
        """Returns the objects of an image of a width and height as annotations, without those that have no such shape."""

    def find_data(self, folder: Path) -> tuple[str, Photographs] | None:
        return read_annotated(folder, self.task_type, self.annotations)

    def samples(self, folder: Path, report: Callable[[str], None], download: Download) -> Photographs:  # noqa: ARG002
        report(
            "Without data=FOLDER, objects are synthetic: scikit-learn's scanned digits, placed at random on a textured ground."
        )
        found = self.find_data(write_scenes(folder / self.scenes.name, style=self.scenes))
        assert found is not None  # written by this version or an earlier one
        return found[1]

    def quality_without_training(self, drawn: Sequence[Annotations], test: Sequence[Annotations]) -> float | None:
        """0 if no drawn image has an object: a model that finds nothing."""
        return None if any(drawn) else float(not any(test))


def seen(truth: Annotations, concepts: Sequence[str], draw: random.Random) -> Iterator[tuple[Annotation, str]]:
    """Yields the true annotations that an annotator sees, each with the concept that the annotator gives it."""
    for one in truth:
        if draw.random() >= MISS_SHARE:
            others = [other for other in concepts if other != one.concept]
            yield one, draw.choice(others) if others and draw.random() < CONFUSE_SHARE else one.concept

"""The task of pixels: each has one concept or none, and an image without masks shows none of the concepts."""

from collections.abc import Callable, Iterator
from pathlib import Path

from vesta_training.example import Example
from vesta_training.progress import ProgressUpdate
from vesta_training.tasks.assignment import Assignment, ControlCurve, Dependencies, Trained
from vesta_training.tasks.semantic_segmentation.examples import COLUMNS, read_masked
from vesta_training.tasks.training_task import Row


class Pixels:
    """Trains on masks."""

    columns = COLUMNS

    def examples(self, rows: Iterator[Row]) -> tuple[tuple[Example, ...], int]:
        """Returns the annotated items, and the number of items with other shapes only."""
        return read_masked(rows)

    def train(
        self, assignment: Assignment, dependencies: Dependencies, progress: Callable[[ProgressUpdate], None]
    ) -> Trained:
        """Fits a segmentation head on cached feature maps."""
        from vesta_training.tasks.semantic_segmentation.train import train  # imports torch

        return train(assignment, dependencies, progress)

    def measure_curve(
        self,
        assignment: Assignment,
        dependencies: Dependencies,
        model: Path,  # noqa: ARG002
        progress: Callable[[ProgressUpdate], None],
    ) -> ControlCurve:
        """Fits segmenters of few steps."""
        from vesta_training.tasks.semantic_segmentation.curve import measure_curve  # imports torch

        return measure_curve(assignment, dependencies, progress)

"""The task of masks: objects with their pixels, each with a concept. An image without objects shows none of the concepts."""

from collections.abc import Callable, Iterator
from pathlib import Path

from vesta_training.example import Example
from vesta_training.progress import ProgressUpdate
from vesta_training.tasks.assignment import Assignment, ControlCurve, Dependencies, Trained
from vesta_training.tasks.detection.examples import COLUMNS
from vesta_training.tasks.instance_segmentation.examples import read_masked
from vesta_training.tasks.training_task import Row


class Masks:
    """Trains on polygons and masks."""

    columns = COLUMNS

    def examples(self, rows: Iterator[Row]) -> tuple[tuple[Example, ...], int]:
        """Returns the annotated items, and the number of items with other shapes only."""
        return read_masked(rows)

    def train(
        self, assignment: Assignment, dependencies: Dependencies, progress: Callable[[ProgressUpdate], None]
    ) -> Trained:
        """Fits a detection head with a mask head on cached feature maps."""
        from vesta_training.tasks.detection.train import train  # imports torch

        return train(assignment, dependencies, progress)

    def measure_curve(
        self,
        assignment: Assignment,
        dependencies: Dependencies,
        model: Path,
        progress: Callable[[ProgressUpdate], None],
    ) -> ControlCurve:
        """Fits detectors with mask heads, of few steps."""
        from vesta_training.tasks.detection.curve import measure_curve  # imports torch

        return measure_curve(assignment, dependencies, model, progress)

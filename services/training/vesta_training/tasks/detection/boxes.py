"""The task of boxes: each has a concept, and an image without boxes shows none of the concepts."""

from collections.abc import Callable, Iterator
from pathlib import Path

from vesta_training.example import Example
from vesta_training.progress import ProgressUpdate
from vesta_training.tasks.assignment import Assignment, ControlCurve, Dependencies, Trained
from vesta_training.tasks.detection.examples import COLUMNS, read_boxed
from vesta_training.tasks.training_task import Row


class Boxes:
    """Trains on boxes."""

    columns = COLUMNS

    def examples(self, rows: Iterator[Row]) -> tuple[tuple[Example, ...], int]:
        """Returns the annotated items, and the number of items with other shapes only."""
        return read_boxed(rows)

    def train(
        self, assignment: Assignment, dependencies: Dependencies, progress: Callable[[ProgressUpdate], None]
    ) -> Trained:
        """Fits a detection head on cached feature maps."""
        from vesta_training.tasks.detection.train import train  # imports torch

        return train(assignment, dependencies, progress)

    def measure_curve(
        self,
        assignment: Assignment,
        dependencies: Dependencies,
        model: Path,
        progress: Callable[[ProgressUpdate], None],
    ) -> ControlCurve:
        """Fits detectors of few steps."""
        from vesta_training.tasks.detection.curve import measure_curve  # imports torch

        return measure_curve(assignment, dependencies, model, progress)

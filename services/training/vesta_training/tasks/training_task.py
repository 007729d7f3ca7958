"""How models of one task are trained: the interface of the task modules."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vesta_training.example import Example
from vesta_training.progress import ProgressUpdate
from vesta_training.tasks.assignment import Assignment, ControlCurve, Dependencies, Trained

Row = Mapping[str, Any]
"""A row of the manifest of a snapshot: values by column. docs/snapshot-manifest.md describes the columns."""


class TrainingTask(Protocol):
    """A task of recipes."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns of the manifest that `examples` reads."""
        ...

    def examples(self, rows: Iterator[Row]) -> tuple[tuple[Example, ...], int]:
        """Returns the examples among the rows of a snapshot, and the number of annotated rows whose annotations are not of the task.

        Rows that are not annotated are neither.
        """
        ...

    def train(
        self, assignment: Assignment, dependencies: Dependencies, progress: Callable[[ProgressUpdate], None]
    ) -> Trained:
        """Trains, evaluates and exports a model, and compares it with the champion. Equal assignments give equal files on equal machines.

        Raises:
            LearningError: the training failed permanently.
        """
        ...

    def measure_curve(
        self,
        assignment: Assignment,
        dependencies: Dependencies,
        model: Path,
        progress: Callable[[ProgressUpdate], None],
    ) -> ControlCurve:
        """Measures the learning curve of random labels, and compares it with a model that `train` made of an equal assignment.

        Called after the model is registered, often in another process; cached features are not computed again.

        Args:
            assignment: has items of the test split.
            model: the file of the model.

        Raises:
            LearningError: the measurement failed permanently.
        """
        ...

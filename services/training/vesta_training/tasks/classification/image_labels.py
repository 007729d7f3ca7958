"""The task of labels of whole images: one label, several labels, or none at all for models that only compute embeddings."""

from collections.abc import Callable, Iterator
from pathlib import Path

from vesta_training.example import Example, Split
from vesta_training.progress import ProgressUpdate
from vesta_training.tasks.assignment import Assignment, ControlCurve, Dependencies, Trained
from vesta_training.tasks.classification.curve import measure_curve
from vesta_training.tasks.classification.train import train
from vesta_training.tasks.training_task import Row


class ImageLabels:
    """Trains on the labels of images as a whole."""

    columns = ("name", "sha256", "split", "labels", "control", "accept_time")

    def examples(self, rows: Iterator[Row]) -> tuple[tuple[Example, ...], int]:
        """Returns the items with accepted image labels, and the number of items with shapes only."""
        examples: list[Example] = []
        known: dict[tuple[str, ...], tuple[str, ...]] = {}  # examples with the same labels share one tuple
        shapes_only_count = 0
        for row in rows:
            if row["labels"] is not None:
                concepts = known.setdefault(tuple(row["labels"]), tuple(row["labels"]))
                examples.append(Example(row["name"], row["sha256"], concepts, Split(row["split"]), row["control"]))
            elif row["accept_time"] is not None:
                shapes_only_count += 1
        return tuple(examples), shapes_only_count

    def train(
        self, assignment: Assignment, dependencies: Dependencies, progress: Callable[[ProgressUpdate], None]
    ) -> Trained:
        """Fits a head on frozen features, and fine-tunes the network if the recipe says so."""
        return train(assignment, dependencies, progress=progress)

    def measure_curve(
        self,
        assignment: Assignment,
        dependencies: Dependencies,
        model: Path,
        progress: Callable[[ProgressUpdate], None],
    ) -> ControlCurve:
        """Fits heads on frozen features."""
        return measure_curve(assignment, dependencies, model, progress)

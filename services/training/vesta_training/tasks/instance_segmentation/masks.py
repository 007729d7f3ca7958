"""The task of masks: objects with their pixels, each with a concept. An image without objects shows none of the concepts."""

from collections.abc import Iterator

from vesta_training.example import Example
from vesta_training.tasks.detection.boxes import Boxes
from vesta_training.tasks.instance_segmentation.examples import read_masked
from vesta_training.tasks.training_task import Row


class Masks(Boxes):
    """Trains on polygons, rotated boxes and masks, as on boxes: the recipe adds a mask head to the detection head."""

    def examples(self, rows: Iterator[Row]) -> tuple[tuple[Example, ...], int]:
        """Returns the annotated items, and the number of items with other shapes only."""
        return read_masked(rows)

"""The predictions of a model for the items of a test split, from which metrics and comparisons are computed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vesta_training.example import Array
from vesta_training.recipes.choices import Task

Labels = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions for `items`. `truth`, `predicted` and `probabilities` are `(N, C)` over `concepts`."""

    task: Task
    items: tuple[str, ...]
    concepts: tuple[str, ...]
    truth: Labels
    probabilities: Array
    predicted: Labels

    @property
    def right(self) -> Labels:
        """`(N,)`, whether the predicted concepts are exactly the true ones."""
        exact: Labels = (self.truth == self.predicted).all(axis=1)
        return exact

    def rows(self) -> list[dict[str, Any]]:
        """Returns one JSON value per item."""
        return [
            {
                "item": item,
                "truth": self._names(self.truth[index]),
                "predicted": self._names(self.predicted[index]),
                "probabilities": [round(float(value), 6) for value in self.probabilities[index]],
            }
            for index, item in enumerate(self.items)
        ]

    def _names(self, row: Labels) -> list[str]:
        return [concept for concept, is_set in zip(self.concepts, row, strict=True) if is_set]


def over_concepts(predictions: Predictions, concepts: tuple[str, ...], truth: Labels) -> Predictions:
    """Returns the predictions over another list of concepts, such as that of a challenger with additional concepts.

    Concepts that the model does not have are never predicted. Predictions of concepts that are not in the list are dropped, so that
    their items count as wrong.

    Args:
        predictions: over the concepts of the model.
        concepts: the new list.
        truth: `(N, C)` over `concepts`.
    """
    column = {concept: index for index, concept in enumerate(predictions.concepts)}
    probabilities = np.zeros(truth.shape, dtype=np.float32)
    predicted = np.zeros(truth.shape, dtype=np.bool_)
    for index, concept in enumerate(concepts):
        if concept in column:
            probabilities[:, index] = predictions.probabilities[:, column[concept]]
            predicted[:, index] = predictions.predicted[:, column[concept]]
    return Predictions(
        task=predictions.task,
        items=predictions.items,
        concepts=concepts,
        truth=truth,
        probabilities=probabilities,
        predicted=predicted,
    )

"""The predictions of one model for the items of a test split, kept in memory while metrics and comparisons are computed from them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vesta_training.example import Array
from vesta_training.recipes.recipe import Task

Labels = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answers:
    """Columns of equal order: `truth`, `predicted` and `probabilities` are `(N, C)` over `concepts`."""

    task: Task
    items: tuple[str, ...]
    concepts: tuple[str, ...]
    truth: Labels
    probabilities: Array
    predicted: Labels

    @property
    def right(self) -> Labels:
        """`(N,)`: exactly what is true was answered."""
        exact: Labels = (self.truth == self.predicted).all(axis=1)
        return exact

    def rows(self) -> list[dict[str, Any]]:
        """One JSON value an item, to be kept beside the model."""
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
        return [concept for concept, borne in zip(self.concepts, row, strict=True) if borne]


def over_concepts(answers: Answers, concepts: tuple[str, ...], truth: Labels) -> Answers:
    """The same answers over another list of concepts, such as a challenger's that knows one more.

    What the model does not know it never answers; what it knows beyond the list is dropped, so an item for which that
    was the answer counts as wrong. `truth` is `(N, C)` over `concepts`.
    """
    column = {concept: index for index, concept in enumerate(answers.concepts)}
    probabilities = np.zeros(truth.shape, dtype=np.float32)
    predicted = np.zeros(truth.shape, dtype=np.bool_)
    for index, concept in enumerate(concepts):
        if concept in column:
            probabilities[:, index] = answers.probabilities[:, column[concept]]
            predicted[:, index] = answers.predicted[:, column[concept]]
    return Answers(
        task=answers.task,
        items=answers.items,
        concepts=concepts,
        truth=truth,
        probabilities=probabilities,
        predicted=predicted,
    )

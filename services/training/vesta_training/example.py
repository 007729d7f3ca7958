"""A labelled image for training: a row of the manifest of a snapshot."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


class Split(StrEnum):
    """A split, with the values of the manifest."""

    TRAIN = "TRAIN"
    VALIDATION = "VALIDATION"
    TEST = "TEST"


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled item.

    Attributes:
        concepts: exactly one for classification. For multi-label any number; the image shows none of the other concepts.
        control: whether the random control arm drew the item.
    """

    item: str
    image_sha256: str
    concepts: tuple[str, ...]
    split: Split
    control: bool = False

    @property
    def identity(self) -> str:
        """The image with all that is learned from it."""
        return f"{self.image_sha256};{self.concepts};{self.split}"


def label_matrix(examples: Sequence[Example], concepts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Returns `(N, C)`, true where the example has the concept. Labels that are not in `concepts` are ignored."""
    column = {concept: index for index, concept in enumerate(concepts)}
    labels = np.zeros((len(examples), len(concepts)), dtype=np.bool_)
    for row, example in enumerate(examples):
        for concept in example.concepts:
            if concept in column:
                labels[row, column[concept]] = True
    return labels

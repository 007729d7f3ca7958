"""One labelled image as training sees it: a row of a snapshot's manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


class Split(StrEnum):
    """An item's side, in the words of the manifest."""

    TRAIN = "TRAIN"
    VALIDATION = "VALIDATION"
    TEST = "TEST"


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled item.

    `concepts` holds exactly one concept for classification, any number for multi-label: there, a concept not named is
    a concept that the image does not show. `control` is true for items drawn at random by the control arm.
    """

    item: str
    image_sha256: str
    concepts: tuple[str, ...]
    split: Split
    control: bool = False


def label_matrix(examples: Sequence[Example], concepts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """`(N, C)`, true where the example bears the concept; what is not among `concepts` is left out."""
    column = {concept: index for index, concept in enumerate(concepts)}
    labels = np.zeros((len(examples), len(concepts)), dtype=np.bool_)
    for row, example in enumerate(examples):
        for concept in example.concepts:
            if concept in column:
                labels[row, column[concept]] = True
    return labels

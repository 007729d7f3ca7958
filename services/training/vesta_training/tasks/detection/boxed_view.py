"""A view of an image with the objects that a detector learns from it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesta_training.example import Array
from vesta_training.tasks.detection.mask_targets import MaskTargets


@dataclass(frozen=True, slots=True)
class BoxedView:
    """A view of an image to learn from: the key of its maps, its boxes `(M, 4)`, and the numbers `(M,)` of their concepts.

    Attributes:
        masks: what the mask head has to predict; None if objects are boxes.
    """

    key: str
    boxes: Array
    numbers: npt.NDArray[np.int64]
    masks: MaskTargets | None = None

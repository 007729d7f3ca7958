"""A view of an image with the objects that a detector learns from it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesta_training.example import Array
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.detection.mask_targets import MaskTargets


@dataclass(frozen=True, slots=True)
class BoxedView:
    """A view of an image to learn from: the key of its maps, its boxes `(M, 4)`, and the numbers `(M,)` of their concepts.

    Attributes:
        masks: what the mask head has to predict; None if objects are boxes.
        crowds: `(K, 4)`, boxes of crowds, in which nothing has to be predicted and anything may be; None for none.
    """

    key: str
    boxes: Array
    numbers: npt.NDArray[np.int64]
    masks: MaskTargets | None = None
    crowds: Array | None = None


def crowds_in_view(boxes: Array, example: BoxedExample) -> Array:
    """Returns the boxes of crowds that are at least partly in a view.

    Args:
        boxes: `(M, 4)`, those of the example, clipped to the view.
    """
    return boxes[example.is_crowd & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)]

"""How uncertain predictions are, as the strategies of selection use it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from vesta_common.media.predictions import Floats

Mask = NDArray[np.bool_]
Answers = Sequence[Sequence[str] | None]


@dataclass(frozen=True, slots=True, eq=False)
class Uncertainty:
    """The uncertainty of the predictions of N items. 0 is certain; of a task type, higher values are more uncertain.

    Attributes:
        margin: `(N,)` in `[0, 1]`, by the distance of each item from another prediction.
        entropy: `(N,)` in `[0, 1]`, by the entropy of the predictions of each item.
        gain: `(N,)` in `[0, 1]`, how much better the model is expected to become for each second of the annotation of the item, relative to
            the best item. None if all items take the same time; the margin then says it.
    """

    margin: Floats
    entropy: Floats
    gain: Floats | None = None

    @property
    def worth(self) -> Floats:
        """`(N,)` in `[0, 1]`, by which the default strategy selects: the gain if it is known, otherwise the margin."""
        return self.margin if self.gain is None else self.gain

"""How uncertain predictions are, as the strategies of selection use it."""

from dataclasses import dataclass

from vesta_common.media.predictions import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Uncertainty:
    """The uncertainty of the predictions of N items. 0 is certain; of a task type, higher values are more uncertain.

    Attributes:
        margin: `(N,)` in `[0, 1]`, by the distance of each item from another prediction.
        entropy: `(N,)` in `[0, 1]`, by the entropy of the predictions of each item.
    """

    margin: Floats
    entropy: Floats

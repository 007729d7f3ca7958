"""Detection: each predicted box is compared with an accepted one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_common.media.annotation_cost import DRAW_BOX_SECONDS
from vesta_common.media.boxes import box_ious, box_shares, corners
from vesta_contracts.common.v1 import Annotation

from vesta_conductor.task_types.objects import ObjectLoopTask


class Detection(ObjectLoopTask):
    """Boxes."""

    recipe = "detection"
    draw_seconds = DRAW_BOX_SECONDS
    metric = "mAP@50"

    def overlaps(self, one: Sequence[Annotation], other: Sequence[Annotation]) -> NDArray[np.float64]:
        return box_ious(corners(one), corners(other))

    def shares(self, one: Sequence[Annotation], other: Sequence[Annotation]) -> NDArray[np.float64]:
        return box_shares(corners(one), corners(other))

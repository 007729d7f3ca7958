"""Instance segmentation: each predicted mask is compared with an accepted area."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_common.media.annotation_cost import DRAW_OUTLINE_SECONDS
from vesta_common.media.areas import area_ious, area_shares
from vesta_contracts.common.v1 import Annotation

from vesta_conductor.task_types.objects import ObjectLoopTask


class InstanceSegmentation(ObjectLoopTask):
    """Polygons, rotated boxes and masks."""

    recipe = "instance-segmentation"
    draw_seconds = DRAW_OUTLINE_SECONDS
    metric = "mask mAP@50"

    def overlaps(self, one: Sequence[Annotation], other: Sequence[Annotation]) -> NDArray[np.float64]:
        return area_ious(one, other)

    def shares(self, one: Sequence[Annotation], other: Sequence[Annotation]) -> NDArray[np.float64]:
        return area_shares(one, other)

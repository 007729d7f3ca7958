"""Instance segmentation: masks with scores, on the image. Those that reach the threshold of their concept are predicted. Pure."""

import numpy as np
from numpy.typing import NDArray
from vesta_common.errors import FailedPrecondition
from vesta_common.media.box_masks import mask_ious, paste
from vesta_common.media.boxes import box_ious
from vesta_common.media.mask_runs import mask_of
from vesta_common.media.model_input import Placement
from vesta_common.media.model_signatures import MASKS, OBJECTS
from vesta_contracts.common.v1 import Annotation, Prediction

from vesta_serving.task_types.objects import Indices, ObjectServingTask, found_objects, prediction_of
from vesta_serving.task_types.policy import Policy
from vesta_serving.task_types.serving_task import ImageOutputs, Vocabulary

MASK_DIMENSIONS = 3


class InstanceSegmentation(ObjectServingTask):
    """Any number of masks. Uncertain if a score is close to its threshold, if predicted masks overlap, or if there are as many as the
    model can return.
    """

    outputs = (OBJECTS, MASKS)

    def prediction(
        self, outputs: ImageOutputs, vocabulary: Vocabulary, policy: Policy, placement: Placement
    ) -> Prediction:
        """From `(K, 6)` and `(K, S, S)`, see `vesta.training.v1.ModelOutput`. Masks without pixels in the area to predict are left out.

        Raises:
            FailedPrecondition: MODEL_OUTPUT_INVALID, the model does not return one mask for each object, or as `found_objects`.
        """
        rows, masks = outputs[OBJECTS], outputs[MASKS]
        if masks.ndim != MASK_DIMENSIONS or len(masks) != len(rows):
            raise FailedPrecondition(
                f"{vocabulary.model_version} returns {len(rows)} objects with masks of the shape {masks.shape}; register a model with "
                f"masks ({len(rows)}, S, S)",
                reason="MODEL_OUTPUT_INVALID",
            )
        found = found_objects(rows, vocabulary, placement)
        height_px, width_px = placement.image_hw
        frames = placement.around_image(rows[found.rows, :4])
        pasted = [
            paste(masks[row], frame, placement.area, width_px) for row, frame in zip(found.rows, frames, strict=True)
        ]
        kept = np.array([place for place, edges in enumerate(pasted) if len(edges)], np.intp)
        visible, edges = found.selected(kept), [pasted[place] for place in kept]

        def overlaps(places: Indices) -> NDArray[np.float64]:
            boxes, own = visible.boxes_xyxy[places], [edges[place] for place in places]
            return mask_ious(own, own, np.triu(box_ious(boxes, boxes) > 0, 1))

        shapes = [Annotation(mask=mask_of(one, height_px, width_px)) for one in edges]
        return prediction_of(visible, shapes, overlaps, vocabulary, policy)

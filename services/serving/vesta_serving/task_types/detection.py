"""Detection: boxes with scores, scaled to the image. Those that reach the threshold of their concept are predicted. Pure."""

from vesta_common.media.boxes import box_ious
from vesta_common.media.model_input import Placement
from vesta_common.media.model_signatures import OBJECTS
from vesta_contracts.common.v1 import Annotation, PixelBox, Prediction

from vesta_serving.task_types.objects import ObjectServingTask, found_objects, prediction_of
from vesta_serving.task_types.policy import Policy
from vesta_serving.task_types.serving_task import ImageOutputs, Vocabulary


class Detection(ObjectServingTask):
    """Any number of boxes. Uncertain if a score is close to its threshold, if predicted boxes overlap, or if there are as many as the
    model can return.
    """

    outputs = (OBJECTS,)

    def prediction(
        self, outputs: ImageOutputs, vocabulary: Vocabulary, policy: Policy, placement: Placement
    ) -> Prediction:
        """From `(K, 6)`, see `vesta.training.v1.ModelOutput`. Boxes outside of the area to predict are left out."""
        found = found_objects(outputs[OBJECTS], vocabulary, placement)
        boxes = found.boxes_xyxy
        shapes = [
            Annotation(box=PixelBox(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max))
            for x_min, y_min, x_max, y_max in boxes.tolist()
        ]
        return prediction_of(found, shapes, lambda places: box_ious(boxes[places], boxes[places]), vocabulary, policy)

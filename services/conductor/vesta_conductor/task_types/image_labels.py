"""What classification and multi-label classification have in common: the accuracy of image labels."""

from collections.abc import Iterable

from vesta_common.media.image_labels import image_labels
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.training.v1 import Estimate, Metrics

from vesta_conductor.task_types.loop_task import LoopTask


class ImageLabels(LoopTask):
    """Labels of whole images. Shapes do not label an item."""

    metric = "accuracy"
    concept_metric = "recall"

    def quality(self, metrics: Metrics) -> Estimate:
        return metrics.accuracy

    def is_labelled(self, annotations: Iterable[Annotation]) -> bool:
        return image_labels(annotations) is not None

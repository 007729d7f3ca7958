"""Multi-label classification: the whole set of predicted labels is compared with the accepted ones."""

from vesta_common.media.image_labels import image_labels
from vesta_contracts.annotation.v1 import Task

from vesta_conductor.task_types.image_labels import ImageLabels


class MultiLabel(ImageLabels):
    """Any number of labels per item; a prediction without a label is a prediction too."""

    recipe = "multilabel"
    concepts_min = 1

    def is_correct(self, task: Task) -> bool | None:
        accepted = image_labels(task.accepted)
        return None if accepted is None else set(accepted) == {one.concept for one in task.pre_annotations}

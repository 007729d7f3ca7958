"""Classification: the best label is compared with the accepted one."""

from vesta_common.media.image_labels import image_labels
from vesta_contracts.annotation.v1 import Task

from vesta_conductor.task_types.image_labels import ImageLabels


class Classification(ImageLabels):
    """One label per item."""

    recipe = "classification"
    concepts_min = 2

    def is_correct(self, task: Task) -> bool | None:
        accepted = image_labels(task.accepted)
        if accepted is None or not task.pre_annotations:
            return None
        best = max(task.pre_annotations, key=lambda annotation: annotation.score)
        return set(accepted) == {best.concept}

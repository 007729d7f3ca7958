"""The registry of tasks: how models of each task of recipes are trained."""

from vesta_training.recipes.choices import Task
from vesta_training.tasks.classification.image_labels import ImageLabels
from vesta_training.tasks.detection.boxes import Boxes
from vesta_training.tasks.instance_segmentation.masks import Masks
from vesta_training.tasks.semantic_segmentation.pixels import Pixels
from vesta_training.tasks.training_task import TrainingTask

_IMAGE_LABELS = ImageLabels()
_TASKS: dict[Task, TrainingTask] = {
    Task.CLASSIFICATION: _IMAGE_LABELS,
    Task.MULTILABEL: _IMAGE_LABELS,
    Task.DETECTION: Boxes(),
    Task.SEMANTIC_SEGMENTATION: Pixels(),
    Task.INSTANCE_SEGMENTATION: Masks(),
    Task.EMBEDDING: _IMAGE_LABELS,
}


def training_task(task: Task) -> TrainingTask:
    """Returns how models of a task are trained."""
    return _TASKS[task]

"""Semantic segmentation: the pixels that are predicted for each concept are compared with the accepted ones."""

from collections.abc import Iterable, Sequence

from vesta_common.media.annotation_cost import DRAW_OUTLINE_SECONDS
from vesta_common.media.mask_runs import Edges, covered, edges_of, iou
from vesta_common.media.segmentation_maps import IOU_MIN
from vesta_contracts.annotation.v1 import Task
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.training.v1 import Estimate, Metrics

from vesta_conductor.task_types.loop_task import LoopTask


class SemanticSegmentation(LoopTask):
    """One mask per concept. A prediction without a mask is a prediction too."""

    recipe = "semantic-segmentation"
    draw_seconds = DRAW_OUTLINE_SECONDS
    concepts_min = 1
    metric = "mIoU"
    concept_metric = "IoU"

    def quality(self, metrics: Metrics) -> Estimate:
        return metrics.mean_iou

    def is_labelled(self, annotations: Iterable[Annotation]) -> bool:  # noqa: ARG002
        """Always: no mask says that nothing is there."""
        return True

    def is_correct(self, task: Task) -> bool:
        """Whether the same concepts are predicted and accepted, the pixels of each with an IoU of `IOU_MIN` or more."""
        accepted, predicted = _pixels(task.accepted), _pixels(task.pre_annotations)
        return accepted.keys() == predicted.keys() and all(
            iou(edges, predicted[concept]) >= IOU_MIN for concept, edges in accepted.items()
        )


def _pixels(masks: Sequence[Annotation]) -> dict[str, Edges]:
    """Returns the pixels of each concept."""
    parts: dict[str, list[Edges]] = {}
    for one in masks:
        parts.setdefault(one.concept, []).append(edges_of(one.mask))
    return {concept: covered(edges, 1) for concept, edges in parts.items()}

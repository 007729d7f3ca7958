"""Recipes: typed configurations of a training, with a reason for each choice.

In YAML a choice is written as `learning_rate: {value: 0.0001, because: "…"}` or without a reason as `learning_rate: 0.0001`. Omitted
choices have the defaults of `choices.py`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from vesta_training.errors import RecipeError
from vesta_training.recipes.choices import (
    SECTIONS,
    BackboneChoices,
    Choices,
    DetectionChoices,
    DetectionFinetuneChoices,
    EvaluationChoices,
    FinetuneChoices,
    HeadChoices,
    MaskChoices,
    SegmentationChoices,
    Task,
)

YAML_BYTES_MAX = 65_536
YAML_DEPTH_MAX = 20
BUILTIN = (
    "classification",
    "classification-finetune",
    "detection",
    "detection-finetune",
    "instance-segmentation",
    "semantic-segmentation",
    "multilabel",
    "embedding",
)


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
    detection_finetune: DetectionFinetuneChoices | None
    masks: MaskChoices | None
    segmentation: SegmentationChoices | None
    evaluation: EvaluationChoices
    reasons: Mapping[str, str]
    digest: str

    @property
    def finetunes(self) -> bool:
        """Whether it trains a whole network, for which GPUs and several processes are used."""
        return self.finetune is not None or self.detection_finetune is not None


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
        raise RecipeError(f"recipe {name}: a mapping is expected, with the keys {_known(Choices)}")
    reasons: dict[str, str] = {}
    plain = _without_reasons(document, "", reasons)
    try:
        choices = Choices.model_validate(plain)
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
        detection_finetune=choices.detection_finetune,
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
    for section in SECTIONS:
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
    section = SECTIONS.get(str(fault["loc"][0]), Choices) if len(fault["loc"]) > 1 else Choices
    return f"{path}: unknown; known keys: {_known(section)}"

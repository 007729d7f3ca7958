"""What trainings of heads on cached feature maps have in common: their examples, the planned time, and the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from vesta_contracts.training.v1 import Comparison, Estimate, ExclusionCounts, HeldOutPredictions, Metrics

from vesta_training.example import Example, Split
from vesta_training.features.backbone import Backbone
from vesta_training.models.export import Export
from vesta_training.models.model_file import ModelFile
from vesta_training.recipes.choices import MapHeadChoices
from vesta_training.tasks.assignment import Assignment, Dependencies, Trained
from vesta_training.tasks.result import Evaluated, Learning, trained
from vesta_training.tasks.views.cross_fit import fold_step_count
from vesta_training.tasks.views.fit import step_count

NO_TEST_LABELS = (
    "No item in the test split of the snapshot is annotated. Annotate items of the test split; if it is empty, add items to it, or "
    "create a dataset with a split_policy.test_share above 0."
)
# Durations on one CPU thread. They give the initial estimate of the time left, before steps are measured.
SECONDS_PER_VIEW = 0.03
SECONDS_PER_IMAGE_IN_STEP = 0.008
SECONDS_TO_EVALUATE = 10.0
SECONDS_TO_EXPORT = 2.0

Shaped = TypeVar("Shaped", bound=Example)
Predicted = TypeVar("Predicted")


class LearnedHead(Protocol):
    """What a training reports of its learning.

    Attributes:
        facts: for the model card.
        held_out: the primary metric on images that were held out by cross-fitting; None if there were none.
        caution: why the scores are not calibrated; empty if they are.
    """

    @property
    def facts(self) -> Mapping[str, Any]: ...

    @property
    def held_out(self) -> Estimate | None: ...

    @property
    def caution(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Measured(Generic[Predicted]):
    """The evaluation on the test items; all None if there are none."""

    metrics: Metrics | None
    predictions: Predicted | None
    champion_predictions: Predicted | None
    comparison: Comparison | None
    comparison_missing: str
    held_out: HeldOutPredictions | None


def usable_shapes(assignment: Assignment, kind: type[Shaped]) -> tuple[list[Shaped], ExclusionCounts]:
    """Returns the examples whose concepts are all known, and the numbers of annotated items that are excluded, by reason."""
    concepts = set(assignment.concepts)
    examples = [example for example in assignment.examples if isinstance(example, kind)]
    usable = [example for example in examples if concepts.issuperset(example.concepts)]
    excluded = ExclusionCounts(
        shapes_only_count=assignment.shapes_only_count, unknown_concept_count=len(examples) - len(usable)
    )
    return usable, excluded


def learned_from(usable: Sequence[Shaped], choices: MapHeadChoices, seed: int) -> list[Shaped]:
    """Returns the examples to learn from: all outside the test split, or as many random ones as the recipe has views for."""
    known = [example for example in usable if example.split is not Split.TEST]
    if len(known) <= choices.views_total_max:
        return known
    chosen = np.random.default_rng(seed).permutation(len(known))[: choices.views_total_max]
    return [known[int(position)] for position in np.sort(chosen)]


def incomparable(assignment: Assignment, model: ModelFile, champion: ModelFile | None, test: Sequence[Example]) -> str:
    """Returns why challenger and champion cannot be compared, with a suggested fix; empty if they can, or if there is no champion."""
    if assignment.champion is None or champion is None:
        return assignment.champion_missing
    if champion.task is not model.task:
        return (
            f"the champion {assignment.champion.name} has the task {champion.task.value} and the challenger the task "
            f"{model.task.value}; set model_version of the deployment to the challenger, or train with a recipe of the champion's task"
        )
    if not test:
        return "no item of the test split is annotated; add items to the test split, or annotate its items"
    return ""


def result(
    assignment: Assignment,
    dependencies: Dependencies,
    backbone: Backbone,
    usable: Sequence[Example],
    excluded: ExclusionCounts,
    learned: LearnedHead,
    export: Export,
    measured: Measured[Any],
    finetune_skipped: str = "",
) -> Trained:
    """Returns the result of a training, with its model card.

    Args:
        finetune_skipped: why the fine-tuning of the recipe was skipped; empty if it was not.
    """
    learning = Learning(learned.facts, learned.held_out, learned.caution, finetune_skipped)
    evaluated = Evaluated(
        metrics=measured.metrics,
        metrics_missing_reason="" if measured.metrics is not None else NO_TEST_LABELS,
        predictions=measured.predictions,
        champion_predictions=measured.champion_predictions,
        comparison=measured.comparison,
        comparison_missing=measured.comparison_missing,
        held_out=measured.held_out,
    )
    return trained(assignment, dependencies, backbone, usable, excluded, learning, export, evaluated)


def plan(choices: MapHeadChoices, image_count: int, threads: int, *, only_folds: bool = False) -> dict[str, float]:
    """Returns the planned duration of each phase in seconds, in order.

    Args:
        only_folds: whether no head learns from all images.
    """
    views = choices.view_count(image_count) * image_count
    steps = 0 if only_folds else step_count(image_count, choices)
    seconds_per_step = choices.batch_size * SECONDS_PER_IMAGE_IN_STEP / threads
    fold_steps = fold_step_count(image_count, choices) * choices.calibration_folds
    return {
        "features": views * SECONDS_PER_VIEW / threads,
        "head": (steps + fold_steps) * seconds_per_step,
        "export": SECONDS_TO_EXPORT,
        "evaluate": SECONDS_TO_EVALUATE,
    }

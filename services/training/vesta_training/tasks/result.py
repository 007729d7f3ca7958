"""Builds the result of a training from its parts: what was learned, the model file, and its evaluation. All tasks share it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vesta_contracts.training.v1 import Comparison, Estimate, ExclusionCounts, HeldOutPredictions, Metrics

from vesta_training.example import Example
from vesta_training.features.backbone import Backbone
from vesta_training.metrics.objects import ObjectPredictions
from vesta_training.metrics.predictions import Predictions
from vesta_training.models.export import Export
from vesta_training.models.model_file import read_model
from vesta_training.tasks.assignment import Assignment, Dependencies, Trained
from vesta_training.tasks.model_card import card_markdown, make_card


@dataclass(frozen=True, slots=True)
class Learning:
    """What the card and the run state about the learning.

    Attributes:
        facts: for the model card.
        held_out_accuracy: the primary metric on training items that were held out of the learning; None if there were none.
        caution: for the model card; empty for none.
        finetune_skipped: why the fine-tuning of the recipe was skipped; empty if it was not.
    """

    facts: Mapping[str, Any]
    held_out_accuracy: Estimate | None = None
    caution: str = ""
    finetune_skipped: str = ""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The evaluation of a model on the items of the test split; see `Trained`.

    Attributes:
        metrics_missing_reason: why `metrics` is None.
    """

    metrics: Metrics | None = None
    metrics_missing_reason: str = ""
    predictions: Predictions | ObjectPredictions | None = None
    champion_predictions: Predictions | ObjectPredictions | None = None
    comparison: Comparison | None = None
    comparison_missing: str = ""
    held_out: HeldOutPredictions | None = None


def trained(
    assignment: Assignment,
    dependencies: Dependencies,
    backbone: Backbone,
    usable: Sequence[Example],
    excluded: ExclusionCounts,
    learning: Learning,
    export: Export,
    evaluated: Evaluated,
) -> Trained:
    """Returns the result of a training, with the card of its model.

    Args:
        usable: the examples that the model learned from or was tested on.
    """
    model = read_model(export.path)
    card = make_card(
        recipe=assignment.recipe,
        backbone=backbone,
        snapshot=assignment.snapshot,
        snapshot_digest=assignment.snapshot_digest,
        examples=usable,
        concepts=assignment.concepts,
        excluded=excluded,
        fitted=learning.facts,
        metrics=evaluated.metrics,
        metrics_missing_reason=evaluated.metrics_missing_reason,
        comparison=evaluated.comparison,
        export=export,
        embedding_digest=model.embedding_digest,
        seed=assignment.seed,
        device=dependencies.device,
        threads=dependencies.threads,
        finetune_skipped=learning.finetune_skipped,
        caution=learning.caution,
    )
    return Trained(
        onnx_path=export.path,
        digest=export.digest,
        size_bytes=export.size_bytes,
        task=model.task,
        signature=model.signature,
        concepts=model.concepts,
        thresholds=model.thresholds,
        embedding_digest=model.embedding_digest,
        embedding_dimension=model.embedding_dimension,
        metrics=evaluated.metrics,
        metrics_missing_reason=evaluated.metrics_missing_reason,
        excluded=excluded,
        predictions=evaluated.predictions,
        champion_predictions=evaluated.champion_predictions,
        comparison=evaluated.comparison,
        comparison_missing=evaluated.comparison_missing,
        held_out_accuracy=learning.held_out_accuracy,
        card=card,
        card_markdown=card_markdown(card, evaluated.metrics),
        finetune_skipped=learning.finetune_skipped,
        held_out=evaluated.held_out,
    )

"""The learning of a training: fits a head on frozen features, and fine-tunes the network if the recipe says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from vesta_contracts.training.v1 import Estimate

from vesta_training.example import Example, Split, label_matrix
from vesta_training.features.backbone import Backbone, load_network
from vesta_training.heads.folds import deal_folds
from vesta_training.heads.linear_head import FittedHead, Head, fit_head
from vesta_training.models.export import export_network
from vesta_training.recipes.choices import FinetuneChoices, HeadChoices
from vesta_training.tasks.assignment import Assignment
from vesta_training.tasks.checkpoints import CheckpointFile
from vesta_training.tasks.classification.finetune import FinetuneInput, Images, finetune
from vesta_training.tasks.classification.stage import Stage

NOTHING_HELD_OUT = (
    "Fine-tuning was skipped: none of the {} labelled images could be held out for "
    "validation, which requires at least two images of two concepts. Label more images, "
    "or add items to the validation split."
)


@dataclass(frozen=True, slots=True)
class Learned:
    """The result of the learning.

    Attributes:
        head: None for task EMBEDDING.
        stage: the model file of the embeddings that the head uses.
        facts: for the model card.
        held_out_accuracy: on items that were held out of the learning.
        finetune_skipped: why the fine-tuning of the recipe was skipped; empty if it was not, or if the recipe has none.
    """

    head: Head | None
    stage: Stage
    facts: Mapping[str, Any]
    held_out_accuracy: Estimate | None = None
    finetune_skipped: str = ""


def learn(assignment: Assignment, backbone: Backbone, stage: Stage, examples: Sequence[Example]) -> Learned:
    """Learns from all examples. Fine-tuning holds out the validation split or, if it is empty, a share of all examples."""
    choices = assignment.recipe.finetune
    held_out = _held_out(assignment, choices, examples) if choices is not None else None
    if choices is None or held_out is None or not held_out.any() or held_out.all():
        skipped = NOTHING_HELD_OUT.format(len(examples)) if choices is not None else ""
        fitted = _fit(assignment, stage, examples)
        return Learned(fitted.head, stage, _facts(fitted), fitted.held_out_accuracy, skipped)
    training_examples = [example for example, out in zip(examples, held_out, strict=True) if not out]
    fitted = _fit(assignment, stage, training_examples)
    stage.report.begin("finetune")
    dependencies = stage.dependencies
    inputs = FinetuneInput(
        head=fitted.head,
        learn=_images(assignment, training_examples),
        held_out=_images(assignment, [example for example, out in zip(examples, held_out, strict=True) if out]),
        choices=choices,
        head_choices=assignment.recipe.head or HeadChoices(),
        input_size_px=backbone.input_size_px,
        fingerprint=f"{assignment.fingerprint};{backbone.digest}",
        seed=assignment.seed,
        device=dependencies.device,
    )
    with dependencies.other_ranks.process_group(inputs) as group:
        tuned = finetune(
            load_network(backbone),
            inputs,
            pixels=dependencies.pixels,
            resumable=CheckpointFile(dependencies.run_folder / "finetune.checkpoint", dependencies.checkpoints),
            threads=dependencies.threads,
            stepped=stage.report.step,
            group=group,
        )
    path = stage.dependencies.run_folder / "tuned.onnx"
    export_network(tuned.network, backbone.input_size_px, tuned.embedding_digest, path)
    return Learned(
        head=tuned.head,
        stage=Stage(stage.dependencies, stage.report, path, tuned.embedding_digest),
        facts={
            **_facts(fitted),
            "tunedEpoch": tuned.epoch,
            "temperature": tuned.temperature,
            "heldOutLoss": tuned.held_out_loss,
        },
        held_out_accuracy=tuned.held_out_accuracy,
    )


def _fit(assignment: Assignment, stage: Stage, examples: Sequence[Example]) -> FittedHead:
    embeddings = stage.embed(examples)
    stage.report.begin("head")
    return fit_head(
        embeddings,
        label_matrix(examples, assignment.concepts),
        assignment.concepts,
        assignment.recipe.task,
        assignment.recipe.head or HeadChoices(),
        seed=assignment.seed,
        fitted=stage.report.step,
    )


def _held_out(assignment: Assignment, choices: FinetuneChoices, examples: Sequence[Example]) -> Any:
    """Returns `(N,)` booleans, true for examples that fine-tuning holds out."""
    validation = np.array([example.split is Split.VALIDATION for example in examples], dtype=np.bool_)
    if validation.any() and not validation.all():
        return validation
    labels = label_matrix(examples, assignment.concepts)
    return deal_folds(labels, round(1 / choices.holdout_share), assignment.seed) == 0


def _images(assignment: Assignment, examples: Sequence[Example]) -> Images:
    return Images(tuple(example.image_sha256 for example in examples), label_matrix(examples, assignment.concepts))


def _facts(fitted: FittedHead) -> dict[str, Any]:
    return {
        "strength": fitted.strength,
        "temperature": fitted.temperature,
        "loss": fitted.loss,
        "heldOutLoss": fitted.held_out_loss,
        "unseenConcepts": list(fitted.unseen_concepts),
    }

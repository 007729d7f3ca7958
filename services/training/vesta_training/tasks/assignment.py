"""What a training is told to do, what it reaches outside through, and what it hands back."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesta_contracts.training.v1 import (
    Comparison,
    Estimate,
    LearningCurvePoint,
    LeftOutCounts,
    Metrics,
    RandomLabels,
)

from vesta_training.example import Example
from vesta_training.features.backbone import WeightsFile
from vesta_training.features.features import FeatureStore, PixelSource
from vesta_training.hardware import CPU
from vesta_training.metrics.predictions import Answers
from vesta_training.recipes.recipe import Recipe, Task
from vesta_training.tasks.checkpoints import HERE_ALONE, Checkpoints
from vesta_training.tasks.group import NO_HELPERS, Helpers


@dataclass(frozen=True, slots=True)
class Champion:
    """A model to compare with: its version's name and its file."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Assignment:
    """What to learn.

    Attributes:
        examples: items whose image labels are accepted; may be empty for an embedding.
        only_shapes_count: items that have accepted shapes and no image label, and so are no examples.
        concepts: fixes the order of the outputs.
        champion_missing: why there is no `champion` although one was named.
        test_dealt: whether the test split is a random sample of the same images, and not one that came apart.
    """

    recipe: Recipe
    examples: tuple[Example, ...] = ()
    only_shapes_count: int = 0
    concepts: tuple[str, ...] = ()
    snapshot: str = ""
    snapshot_digest: str = ""
    champion: Champion | None = None
    champion_missing: str = ""
    control_curve: bool = False
    test_dealt: bool = False
    seed: int = 0

    @property
    def fingerprint(self) -> str:
        """Names everything that decides what is learned, so that only its own checkpoint is gone on from."""
        digest = hashlib.sha256(f"{self.recipe.digest};{self.seed};{self.concepts}".encode())
        for one in self.examples:
            digest.update(f"{one.image_sha256};{one.concepts};{one.split}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Seams:
    """What a training reaches outside through.

    `folder` is kept between runs and shared with others: exported backbones lie there by digest. `run_folder` is this run's
    own: the checkpoint of a tuning lies there, and at the end the model file. `threads` are those that compute, on `device`, which
    is `cpu` or `cuda`; `helpers` are further processes that tune along; `clock` counts seconds.
    """

    pixels: PixelSource
    features: FeatureStore
    weights_file: WeightsFile
    folder: Path
    run_folder: Path
    threads: int
    device: str = CPU
    checkpoints: Checkpoints = HERE_ALONE
    helpers: Helpers = NO_HELPERS
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Trained:
    """What came out. `answers` are the test items one by one. `comparison_missing` says why there is no `comparison` although a
    champion was named.

    `metrics`, `answers` and all that rests on test items are None where there are none; `metrics_missing_reason` says why, and is
    empty otherwise. `held_out_accuracy` is measured on what was held out of learning, apart from the test items; None where that
    was nothing.
    """

    onnx_path: Path
    digest: str
    size_bytes: int
    task: Task
    concepts: tuple[str, ...]
    thresholds: tuple[float, ...]
    embedding_digest: str
    embedding_dimension: int
    metrics: Metrics | None
    metrics_missing_reason: str
    left_out: LeftOutCounts
    answers: Answers | None
    champion_answers: Answers | None
    comparison: Comparison | None
    comparison_missing: str
    control_curve: tuple[LearningCurvePoint, ...]
    random_labels: RandomLabels | None
    held_out_accuracy: Estimate | None
    card: Mapping[str, Any]
    card_markdown: str
    finetune_skipped: str


def sort_out(assignment: Assignment) -> tuple[tuple[Example, ...], LeftOutCounts]:
    """The examples that can be learned from or tested on, and how many annotated items cannot, by why."""
    known = set(assignment.concepts)
    one_label = assignment.recipe.task is Task.CLASSIFICATION
    left_out = LeftOutCounts(only_shapes_count=assignment.only_shapes_count)
    kept = []
    for example in assignment.examples:
        if not known.issuperset(example.concepts):
            left_out.unknown_concept_count += 1
        elif one_label and not example.concepts:
            left_out.no_label_count += 1
        elif one_label and len(example.concepts) > 1:
            left_out.several_labels_count += 1
        else:
            kept.append(example)
    return tuple(kept), left_out


def in_words(left_out: LeftOutCounts) -> str:
    """What was left out, for people: "2 with shapes alone, 1 with several labels"; empty where nothing was."""
    counted = (
        (left_out.no_label_count, "accepted as showing none of the concepts"),
        (left_out.several_labels_count, "with several labels"),
        (left_out.only_shapes_count, "with shapes and no image label"),
        (left_out.unknown_concept_count, "with a label that the taxonomy does not have"),
    )
    return ", ".join(f"{count} {what}" for count, what in counted if count)

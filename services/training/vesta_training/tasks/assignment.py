"""The input of a training, its dependencies and its result."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesta_contracts.training.v1 import (
    Comparison,
    Estimate,
    ExclusionCounts,
    HeldOutPredictions,
    LearningCurvePoint,
    Metrics,
    ModelSignature,
    RandomLabels,
)

from vesta_training.example import Example
from vesta_training.features.backbone import WeightsFile
from vesta_training.features.features import FeatureStore, PixelSource
from vesta_training.hardware import CPU
from vesta_training.metrics.objects import ObjectPredictions
from vesta_training.metrics.predictions import Predictions
from vesta_training.recipes.choices import Task
from vesta_training.recipes.recipe import Recipe
from vesta_training.tasks.checkpoints import NO_COPIES, Checkpoints
from vesta_training.tasks.group import NO_OTHER_RANKS, OtherRanks


@dataclass(frozen=True, slots=True)
class Champion:
    """The model to compare with: the name of its version, and its file."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Pretrained:
    """An imported detector to start from.

    Attributes:
        path: of its ONNX file.
        digest: SHA-256 of the file.
        license, source: from its card.
        colour_order: of its input, `BGR` or `RGB`.
    """

    name: str
    path: Path
    digest: str
    license: str
    source: str
    colour_order: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """The input of a training.

    Attributes:
        examples: items with accepted image labels; can be empty for task EMBEDDING.
        shapes_only_count: items with accepted shapes and no image label, which are not examples.
        concepts: the concepts in the order of the outputs.
        champion_missing: why there is no `champion` although one is set.
        test_split_is_random: whether the test split is a random sample of the same images.
        pretrained: an imported detector that the training can start from.
        pretrained_missing: why there is no `pretrained` although the recipe has one.
    """

    recipe: Recipe
    examples: tuple[Example, ...] = ()
    shapes_only_count: int = 0
    concepts: tuple[str, ...] = ()
    snapshot: str = ""
    snapshot_digest: str = ""
    champion: Champion | None = None
    champion_missing: str = ""
    test_split_is_random: bool = False
    seed: int = 0
    pretrained: Pretrained | None = None
    pretrained_missing: str = ""

    @property
    def fingerprint(self) -> str:
        """A hash of all inputs of the learning, so that a training resumes only from its own checkpoint."""
        digest = hashlib.sha256(f"{self.recipe.digest};{self.seed};{self.concepts}".encode())
        for example in self.examples:
            digest.update(f"{example.identity}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The dependencies of a training on its environment.

    Attributes:
        pixels: loads the model input of an image.
        features: the cache of embeddings.
        weights_file: finds weights files.
        folder: kept between runs and shared by them; it contains exported backbones by digest.
        run_folder: of this run only; it contains the checkpoint and the model file.
        threads: number of compute threads.
        device: `cpu` or `cuda`.
        checkpoints: additional storage of checkpoints.
        other_ranks: the other processes of a distributed run.
        clock: returns seconds.
    """

    pixels: PixelSource
    features: FeatureStore
    weights_file: WeightsFile
    folder: Path
    run_folder: Path
    threads: int
    device: str = CPU
    checkpoints: Checkpoints = NO_COPIES
    other_ranks: OtherRanks = NO_OTHER_RANKS
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a training.

    Attributes:
        metrics: on the test items. It and all other results on test items are None if there are no test items.
        metrics_missing_reason: why `metrics` is None; empty otherwise.
        predictions: the predictions for the test items.
        comparison_missing: why there is no `comparison` although a champion is set.
        held_out_accuracy: the primary metric on training items that were held out of the learning; None if there were none.
        finetune_skipped: why the fine-tuning of the recipe was skipped; empty if it was not.
        held_out: the evidence for error rates; None if no item of the test split is labelled.
    """

    onnx_path: Path
    digest: str
    size_bytes: int
    task: Task
    signature: ModelSignature
    concepts: tuple[str, ...]
    thresholds: tuple[float, ...]
    embedding_digest: str
    embedding_dimension: int
    metrics: Metrics | None
    metrics_missing_reason: str
    excluded: ExclusionCounts
    predictions: Predictions | ObjectPredictions | None
    champion_predictions: Predictions | ObjectPredictions | None
    comparison: Comparison | None
    comparison_missing: str
    held_out_accuracy: Estimate | None
    card: Mapping[str, Any]
    card_markdown: str
    finetune_skipped: str
    held_out: HeldOutPredictions | None = None


@dataclass(frozen=True, slots=True)
class ControlCurve:
    """The learning curve of randomly drawn labels, and the number of them that gives the primary metric of a model."""

    points: tuple[LearningCurvePoint, ...]
    random_labels: RandomLabels


def usable_examples(assignment: Assignment) -> tuple[tuple[Example, ...], ExclusionCounts]:
    """Returns the usable examples, and the numbers of annotated items that are not usable, by reason."""
    known = set(assignment.concepts)
    one_label = assignment.recipe.task is Task.CLASSIFICATION
    excluded = ExclusionCounts(shapes_only_count=assignment.shapes_only_count)
    usable = []
    for example in assignment.examples:
        if not known.issuperset(example.concepts):
            excluded.unknown_concept_count += 1
        elif one_label and not example.concepts:
            excluded.no_label_count += 1
        elif one_label and len(example.concepts) > 1:
            excluded.multiple_labels_count += 1
        else:
            usable.append(example)
    return tuple(usable), excluded


def describe_excluded(excluded: ExclusionCounts) -> str:
    """Describes the items that were left out, such as "1 with several labels"; empty if there are none."""
    counted = (
        (excluded.no_label_count, 'with "none of the concepts"'),
        (excluded.multiple_labels_count, "with several labels"),
        (excluded.shapes_only_count, "with shapes and no image label"),
        (excluded.unknown_concept_count, "with a label that is not in the taxonomy"),
    )
    return ", ".join(f"{count} {what}" for count, what in counted if count)

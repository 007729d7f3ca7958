"""What a training is told to do, what it reaches outside through, and what it hands back."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesta_contracts.training.v1 import Comparison, Estimate, LearningCurvePoint, Metrics

from vesta_training.answers import Answers
from vesta_training.backbone import WeightsFile
from vesta_training.example import Example
from vesta_training.features import FeatureStore, PixelSource
from vesta_training.recipe import Recipe, Task


@dataclass(frozen=True, slots=True)
class Champion:
    """A model to compare with: its version's name and its file."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Assignment:
    """What to learn. `concepts` fixes the order of the outputs; `examples` may be empty for an embedding.

    `champion_missing` says why there is no `champion` although one was named.
    """

    recipe: Recipe
    examples: tuple[Example, ...] = ()
    concepts: tuple[str, ...] = ()
    snapshot: str = ""
    snapshot_digest: str = ""
    champion: Champion | None = None
    champion_missing: str = ""
    control_curve: bool = False
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
    own: the checkpoint of a tuning lies there, and at the end the model file. `threads` are those that compute; `clock` counts
    seconds.
    """

    pixels: PixelSource
    features: FeatureStore
    weights_file: WeightsFile
    folder: Path
    run_folder: Path
    threads: int = 2
    device: str = "cpu"
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Trained:
    """What came out. `answers` are the test items one by one; `metrics` is None for an embedding. `comparison_missing` says
    why there is no `comparison` although a champion was named.

    `held_out_accuracy` is measured on what was held out of learning, apart from the test items; None where that was nothing.
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
    answers: Answers | None
    champion_answers: Answers | None
    comparison: Comparison | None
    comparison_missing: str
    control_curve: tuple[LearningCurvePoint, ...]
    held_out_accuracy: Estimate | None
    card: Mapping[str, Any]
    card_markdown: str


def teaching(examples: Sequence[Example], task: Task, concepts: Sequence[str]) -> tuple[Example, ...]:
    """Those that can be learned from or tested on: not what bears an unknown concept, or none or two where one is due."""
    known = set(concepts)
    return tuple(
        one
        for one in examples
        if known.issuperset(one.concepts) and (task is not Task.CLASSIFICATION or len(one.concepts) == 1)
    )

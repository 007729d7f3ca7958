"""An exported model file during a training: computes the embeddings of examples and the predictions of a head."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vesta_training.example import Array, Example, label_matrix
from vesta_training.features.backbone import EMBEDDING_DIMENSION
from vesta_training.features.features import extract_features
from vesta_training.features.runtime import ModelRuntime
from vesta_training.heads.linear_head import Head
from vesta_training.metrics.predictions import Predictions
from vesta_training.progress import Reporter
from vesta_training.tasks.assignment import Dependencies


@dataclass(frozen=True, slots=True)
class Stage:
    """A model file at `path`, whose embedding space is `embedding_digest`."""

    dependencies: Dependencies
    report: Reporter
    path: Path
    embedding_digest: str

    def embed(self, examples: Sequence[Example]) -> Array:
        """Returns `(N, D)` embeddings. Cached embeddings are not computed again."""
        if not examples:
            return np.zeros((0, EMBEDDING_DIMENSION), dtype=np.float32)
        return extract_features(
            [example.image_sha256 for example in examples],
            model=lambda: ModelRuntime(self.path, self.dependencies.device),
            embedding_digest=self.embedding_digest,
            store=self.dependencies.features,
            pixels=self.dependencies.pixels,
            threads=self.dependencies.threads,
            embedded=self.report.step,
        )

    def predictions(self, head: Head, test: Sequence[Example]) -> Predictions:
        """Returns the predictions of the head for the test items, over the concepts of the head."""
        probabilities = head.probabilities(self.embed(test))
        return Predictions(
            task=head.task,
            items=tuple(example.item for example in test),
            concepts=head.concepts,
            truth=label_matrix(test, head.concepts),
            probabilities=probabilities,
            predicted=head.decide(probabilities),
        )

"""From a model's probabilities to an answer: labels, what was discarded, and whether a person should look. Pure."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.common.v1 import ConceptScore, ImageScores
from vesta_contracts.serving.v1 import UncertaintyPolicy

SCORE_THRESHOLD = 0.5
SCORE_CERTAIN = 0.8
MARGIN_CERTAIN = 0.2


@dataclass(frozen=True)
class Policy:
    """When a label counts and when an answer is certain; scores and margins in [0, 1].

    Attributes:
        score_threshold: labels below it are discarded.
        score_certain: a best score below it is uncertain.
        margin_certain: two best scores closer than this are uncertain.
    """

    score_threshold: float = SCORE_THRESHOLD
    score_certain: float = SCORE_CERTAIN
    margin_certain: float = MARGIN_CERTAIN

    @classmethod
    def of(cls, message: UncertaintyPolicy) -> "Policy":
        """The policy of a deployment, with the defaults for what it leaves open."""
        return cls(
            score_threshold=message.score_threshold if message.HasField("score_threshold") else SCORE_THRESHOLD,
            score_certain=message.score_certain if message.HasField("score_certain") else SCORE_CERTAIN,
            margin_certain=message.margin_certain if message.HasField("margin_certain") else MARGIN_CERTAIN,
        )


@dataclass(frozen=True)
class Vocabulary:
    """What a model's outputs mean.

    Attributes:
        model_version: the version's name.
        concepts: `(C,)` in the order of the outputs; empty for a model that only embeds.
        thresholds: `(C,)` from which probability each concept holds, for a multi-label model; else empty.
    """

    model_version: str
    concepts: tuple[str, ...]
    thresholds: tuple[float, ...] = ()


def score(probabilities: NDArray[np.float32], vocabulary: Vocabulary, policy: Policy, now: datetime) -> ImageScores:
    """What a model says of one image.

    Args:
        probabilities: `(C,)`, calibrated; `(0,)` for a model that only embeds, which is then sure of nothing.
    """
    margin = _margin(probabilities, vocabulary.thresholds)
    best = float(probabilities.max(initial=0.0))
    certain_enough = True if vocabulary.thresholds else best >= policy.score_certain
    scores = ImageScores(
        model_version=vocabulary.model_version,
        scores=[
            ConceptScore(concept=vocabulary.concepts[index], score=float(probabilities[index]))
            for index in np.argsort(-probabilities, kind="stable")
        ],
        uncertain=not (certain_enough and margin >= policy.margin_certain),
        margin=margin,
    )
    scores.predict_time.FromDatetime(now)
    return scores


def split_labels(
    scores: ImageScores, vocabulary: Vocabulary, policy: Policy
) -> tuple[list[ConceptScore], list[ConceptScore]]:
    """The labels that hold and those discarded, each best first.

    A single-label model has at most one label that holds: its best, where that reaches the threshold.
    """
    if vocabulary.thresholds:
        limits = dict(zip(vocabulary.concepts, vocabulary.thresholds, strict=True))
        kept = [found for found in scores.scores if found.score >= limits[found.concept]]
    else:
        kept = [found for found in scores.scores[:1] if found.score >= policy.score_threshold]
    held = {found.concept for found in kept}
    return kept, [found for found in scores.scores if found.concept not in held]


def _margin(probabilities: NDArray[np.float32], thresholds: tuple[float, ...]) -> float:
    """Single-label: the two best scores' difference. Multi-label: the smallest distance of a score from its threshold, doubled."""
    if probabilities.size == 0:
        return 0.0
    if thresholds:
        return float(min(1.0, 2 * np.abs(probabilities - np.asarray(thresholds)).min()))
    if probabilities.size == 1:
        return float(probabilities[0])
    second, first = np.partition(probabilities, -2)[-2:]
    return float(first - second)

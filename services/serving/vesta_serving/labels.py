"""From a model's probabilities to an answer: which labels are predicted, and whether a person should look. Pure.

This is decided here alone. The answer carries the decision with it, so that Predict, the prediction log, the items' scores,
selection, pre-annotations and observations all agree.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from vesta_common.errors import InvalidArgument, Violation
from vesta_common.media.predictions import Floats, is_multi_label, labels_of, share_to_certainty
from vesta_contracts.common.v1 import ConceptScore, ImageScores
from vesta_contracts.serving.v1 import UncertaintyPolicy

SCORE_THRESHOLD = 0.5
SCORE_CERTAIN = 0.8
MARGIN_CERTAIN = 0.2


@dataclass(frozen=True)
class Policy:
    """When a label counts and when an answer is certain; scores, margins and thresholds in [0, 1].

    Attributes:
        score_threshold: labels of a single-label model below it are discarded.
        score_certain: a best score below it is uncertain.
        margin_certain: a smaller margin is uncertain.
        thresholds: of a multi-label model's concepts, instead of the version's own.
    """

    score_threshold: float = SCORE_THRESHOLD
    score_certain: float = SCORE_CERTAIN
    margin_certain: float = MARGIN_CERTAIN
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, message: UncertaintyPolicy) -> "Policy":
        """The policy of a deployment, with the defaults for what it leaves open."""
        return cls(
            score_threshold=message.score_threshold if message.HasField("score_threshold") else SCORE_THRESHOLD,
            score_certain=message.score_certain if message.HasField("score_certain") else SCORE_CERTAIN,
            margin_certain=message.margin_certain if message.HasField("margin_certain") else MARGIN_CERTAIN,
            thresholds=dict(message.thresholds),
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


def check_thresholds(thresholds: Mapping[str, float], vocabulary: Vocabulary) -> None:
    """Checks a deployment's thresholds against the version that it wants.

    Raises:
        InvalidArgument: MODEL_NOT_MULTI_LABEL, the version has no thresholds; THRESHOLD_CONCEPT_UNKNOWN, one is for a concept
            that the version does not know.
    """
    if thresholds and not vocabulary.thresholds:
        raise InvalidArgument(
            f"{vocabulary.model_version} is no multi-label model and has no threshold per concept; set score_threshold",
            reason="MODEL_NOT_MULTI_LABEL",
            violations=[Violation("deployment.uncertainty.thresholds", "is for multi-label models")],
        )
    unknown = sorted(set(thresholds) - set(vocabulary.concepts))
    if unknown:
        raise InvalidArgument(
            f"{vocabulary.model_version} does not know {unknown[0]!r}; its concepts are: {', '.join(vocabulary.concepts)[:1000]}",
            reason="THRESHOLD_CONCEPT_UNKNOWN",
            violations=[
                Violation(f"deployment.uncertainty.thresholds.{concept}", "is no concept of the model version")
                for concept in unknown[:10]
            ],
        )


def score(probabilities: Floats, vocabulary: Vocabulary, policy: Policy, now: datetime) -> ImageScores:
    """What a model says of one image, with what it predicts under a deployment's policy.

    A single-label model predicts its best concept, where that reaches the policy's threshold, or none. A multi-label model
    predicts every concept that reaches its own.

    Args:
        probabilities: `(C,)`, calibrated; `(0,)` for a model that only embeds, which is then sure of nothing.
    """
    best = float(probabilities.max(initial=0.0))
    thresholds = _thresholds(vocabulary, policy)
    if thresholds is not None:
        predicted = probabilities >= thresholds
        margin = float(share_to_certainty(probabilities, thresholds).min())
        certain = margin >= policy.margin_certain
    else:
        predicted = np.zeros(probabilities.shape, np.bool_)
        if probabilities.size:
            predicted[probabilities.argmax()] = best >= np.float32(policy.score_threshold)
        margin = _lead(probabilities)
        certain = best >= policy.score_certain and margin >= policy.margin_certain
    scores = ImageScores(
        model_version=vocabulary.model_version,
        scores=[
            ConceptScore(
                concept=vocabulary.concepts[index],
                score=float(probabilities[index]),
                predicted=bool(predicted[index]),
                threshold=None if thresholds is None else float(thresholds[index]),
            )
            for index in np.argsort(-probabilities, kind="stable")
        ],
        uncertain=not certain,
        margin=margin,
    )
    scores.predict_time.FromDatetime(now)
    return scores


def split_labels(scores: ImageScores) -> tuple[list[ConceptScore], list[ConceptScore]]:
    """The labels that are predicted and those discarded, each best first."""
    return (
        [found for found in scores.scores if found.predicted],
        [found for found in scores.scores if not found.predicted],
    )


def named_labels(scores: ImageScores) -> list[str]:
    """The concepts that an answer is found by: of a multi-label model those that it predicts, else the best."""
    return [found.concept for found in labels_of(scores, multi_label=is_multi_label(scores))]


def _thresholds(vocabulary: Vocabulary, policy: Policy) -> Floats | None:
    """`(C,)`: from which probability each concept is predicted; None for a single-label model."""
    if not vocabulary.thresholds:
        return None
    own = zip(vocabulary.concepts, vocabulary.thresholds, strict=True)
    return np.array([policy.thresholds.get(concept, threshold) for concept, threshold in own], np.float32)


def _lead(probabilities: Floats) -> float:
    """The difference of the two best scores; of one concept its score, of none 0."""
    if probabilities.size < 2:
        return float(probabilities.sum())
    second, first = np.partition(probabilities, -2)[-2:]
    return float(first - second)

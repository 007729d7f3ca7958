"""Derives predictions from a model's probabilities: which labels are predicted, and whether the prediction is uncertain. Pure.

No other module decides this. The prediction contains the decision, so that Predict, the prediction log, the items' scores, selection,
pre-annotations and observations all agree.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from vesta_common.errors import InvalidArgument, Violation
from vesta_common.media.predictions import Floats, share_to_certainty
from vesta_contracts.common.v1 import ConceptScore, Prediction
from vesta_contracts.serving.v1 import UncertaintyPolicy

SCORE_THRESHOLD = 0.5
SCORE_CERTAIN = 0.8
MARGIN_CERTAIN = 0.2


@dataclass(frozen=True)
class Policy:
    """The thresholds for labels and for certainty; all values in [0, 1].

    Attributes:
        score_threshold: a single-label model's label with a lower score is not predicted.
        score_certain: a prediction whose best score is lower is uncertain.
        margin_certain: a prediction with a smaller margin is uncertain.
        thresholds: per concept, for a multi-label model; override those of the version.
    """

    score_threshold: float = SCORE_THRESHOLD
    score_certain: float = SCORE_CERTAIN
    margin_certain: float = MARGIN_CERTAIN
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, message: UncertaintyPolicy) -> "Policy":
        """Returns the policy of a deployment with defaults applied."""
        return cls(
            score_threshold=message.score_threshold if message.HasField("score_threshold") else SCORE_THRESHOLD,
            score_certain=message.score_certain if message.HasField("score_certain") else SCORE_CERTAIN,
            margin_certain=message.margin_certain if message.HasField("margin_certain") else MARGIN_CERTAIN,
            thresholds=dict(message.thresholds),
        )


@dataclass(frozen=True)
class Vocabulary:
    """The meaning of a model's outputs.

    Attributes:
        model_version: the version's name.
        concepts: `(C,)` in the order of the outputs; empty for a model that only computes embeddings.
        thresholds: `(C,)` probability from which each concept is predicted, for a multi-label model; otherwise empty.
    """

    model_version: str
    concepts: tuple[str, ...]
    thresholds: tuple[float, ...] = ()


def check_thresholds(thresholds: Mapping[str, float], vocabulary: Vocabulary) -> None:
    """Checks a deployment's thresholds against its desired model version.

    Raises:
        InvalidArgument: MODEL_NOT_MULTI_LABEL, the version has no thresholds; THRESHOLD_CONCEPT_UNKNOWN, a threshold is for a
            concept that the version does not have.
    """
    if thresholds and not vocabulary.thresholds:
        raise InvalidArgument(
            f"{vocabulary.model_version} is not a multi-label model and has no thresholds per "
            "concept; set score_threshold",
            reason="MODEL_NOT_MULTI_LABEL",
            violations=[Violation("deployment.uncertainty.thresholds", "is only for multi-label models")],
        )
    unknown = sorted(set(thresholds) - set(vocabulary.concepts))
    if unknown:
        raise InvalidArgument(
            f"{vocabulary.model_version} does not have the concept {unknown[0]!r}; its concepts: "
            f"{', '.join(vocabulary.concepts)[:1000]}",
            reason="THRESHOLD_CONCEPT_UNKNOWN",
            violations=[
                Violation(f"deployment.uncertainty.thresholds.{concept}", "is not a concept of the model version")
                for concept in unknown[:10]
            ],
        )


def score(probabilities: Floats, vocabulary: Vocabulary, policy: Policy, now: datetime) -> Prediction:
    """Returns the prediction for one image, with the labels that are predicted under a deployment's policy.

    A single-label model predicts its best concept if that reaches the policy's threshold, otherwise none. A multi-label model
    predicts every concept that reaches its own threshold.

    Args:
        probabilities: `(C,)`, calibrated; `(0,)` for a model that only computes embeddings, whose predictions are always uncertain.
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
        margin = _margin(probabilities)
        certain = best >= policy.score_certain and margin >= policy.margin_certain
    prediction = Prediction(
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
    prediction.predict_time.FromDatetime(now)
    return prediction


def _thresholds(vocabulary: Vocabulary, policy: Policy) -> Floats | None:
    """Returns `(C,)`, the probability from which each concept is predicted; None for a single-label model."""
    if not vocabulary.thresholds:
        return None
    own = zip(vocabulary.concepts, vocabulary.thresholds, strict=True)
    return np.array([policy.thresholds.get(concept, threshold) for concept, threshold in own], np.float32)


def _margin(probabilities: Floats) -> float:
    """Returns the difference of the two best scores; the score itself for one concept, 0 for none."""
    if probabilities.size < 2:
        return float(probabilities.sum())
    second, first = np.partition(probabilities, -2)[-2:]
    return float(first - second)

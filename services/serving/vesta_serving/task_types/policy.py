"""When predictions are uncertain: a deployment's policy with defaults. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
        thresholds: per concept, for models that have a threshold per concept; override those of the version.
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

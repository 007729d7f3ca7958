"""When predictions are uncertain: a deployment's policy with defaults. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vesta_common.risk_control import Acceptance
from vesta_contracts.serving.v1 import UncertaintyPolicy
from vesta_contracts.training.v1 import ModelVersion

from vesta_serving.acceptance import acceptance_of

SCORE_THRESHOLD = 0.5
WITHOUT_EVIDENCE = ModelVersion()


@dataclass(frozen=True)
class Policy:
    """The thresholds for labels, and what decides about certainty; all values in [0, 1].

    Attributes:
        score_threshold: a single-label model's label with a lower score is not predicted.
        score_certain: a prediction whose best score is lower is uncertain; None without this bound.
        margin_certain: a prediction with a smaller margin is uncertain; None without this bound.
        thresholds: per concept, for models that have a threshold per concept; override those of the version.
        two_views: predictions are uncertain that differ for the mirror image, if their task type compares them.
        acceptance: decides about certainty; None if `score_certain` and `margin_certain` do.
    """

    score_threshold: float = SCORE_THRESHOLD
    score_certain: float | None = None
    margin_certain: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    two_views: bool = False
    acceptance: Acceptance | None = field(default_factory=lambda: acceptance_of(UncertaintyPolicy(), WITHOUT_EVIDENCE))

    @classmethod
    def of(cls, message: UncertaintyPolicy, version: ModelVersion = WITHOUT_EVIDENCE) -> "Policy":
        """Returns the policy of a deployment for a model version, with defaults applied."""
        return cls(
            score_threshold=message.score_threshold if message.HasField("score_threshold") else SCORE_THRESHOLD,
            score_certain=message.score_certain if message.HasField("score_certain") else None,
            margin_certain=message.margin_certain if message.HasField("margin_certain") else None,
            thresholds=dict(message.thresholds),
            two_views=message.two_views,
            acceptance=acceptance_of(message, version),
        )

    def doubt(self, margin: float, concepts: Sequence[str], cause: str) -> str:
        """Returns why a prediction is uncertain by its margin; empty if it is not.

        Args:
            concepts: that it predicts.
            cause: what makes the margin small, in words.
        """
        if self.acceptance is not None:
            return self.acceptance.why_not(margin, concepts, cause)
        if self.margin_certain is not None and margin < self.margin_certain:
            return f"{cause}: the margin {margin:.2f} is below {self.margin_certain:g}"
        return ""

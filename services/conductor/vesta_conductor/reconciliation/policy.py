"""The policy of a Loop with all defaults applied."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from vesta_common.risk_control import ERROR_RATE_MAX_DEFAULT, labels_needed
from vesta_contracts.conductor.v1 import Gate, LoopPolicy
from vesta_contracts.datasets.v1 import SelectionStrategy

BATCH_SIZE_DEFAULT = 50
CONTROL_SHARE_DEFAULT = 0.15
TEST_LABELS_DEFAULT = 100
TEST_LABELS_LATER_MAX = 1000
ERRORS_ALLOWED_FOR = (
    2  # times as many labels as the limit of the error rate needs without an error: a few errors are then possible
)


@dataclass(frozen=True)
class Policy:
    """A `LoopPolicy` with all defaults applied.

    Attributes:
        recipe: empty for the default recipe of the dataset's kind.
        score_certain, margin_certain, score_threshold, error_rate_max: None keeps the deployment's value.
        concept_error_rates_max: empty keeps the deployment's values.
        lease_duration: None keeps the campaign's value.
        test_labels: the number of labelled test items before the first training.
        test_labels_later: the number that is reached gradually once a model is deployed.
    """

    dataset: str
    label_budget: int
    batch_size: int
    retrain_after: int
    control_share: float
    recipe: str
    annotators_per_task: int
    review_share: float
    gate: Gate
    instructions: str
    test_labels: int
    test_labels_later: int
    score_certain: float | None
    margin_certain: float | None
    score_threshold: float | None
    error_rate_max: float | None
    concept_error_rates_max: Mapping[str, float]
    strategy: SelectionStrategy.ValueType
    lease_duration: timedelta | None

    @classmethod
    def of(cls, policy: LoopPolicy) -> "Policy":
        batch_size = policy.batch_size or BATCH_SIZE_DEFAULT
        return cls(
            dataset=policy.dataset,
            label_budget=policy.label_budget,
            batch_size=batch_size,
            retrain_after=policy.retrain_after or batch_size,
            control_share=policy.control_share if policy.HasField("control_share") else CONTROL_SHARE_DEFAULT,
            recipe=policy.recipe,
            annotators_per_task=policy.annotators_per_task or 1,
            review_share=policy.review_share,
            gate=policy.gate,
            instructions=policy.instructions,
            test_labels=policy.test_labels or TEST_LABELS_DEFAULT,
            test_labels_later=policy.test_labels or _test_labels_later(policy),
            score_certain=policy.score_certain if policy.HasField("score_certain") else None,
            margin_certain=policy.margin_certain if policy.HasField("margin_certain") else None,
            score_threshold=policy.score_threshold if policy.HasField("score_threshold") else None,
            error_rate_max=policy.error_rate_max if policy.HasField("error_rate_max") else None,
            concept_error_rates_max=dict(policy.concept_error_rates_max),
            strategy=policy.strategy,
            lease_duration=policy.lease_duration.ToTimedelta() if policy.HasField("lease_duration") else None,
        )


def _test_labels_later(policy: LoopPolicy) -> int:
    """Returns how many test labels show that accepted predictions keep their error rate, also with a few errors; see `risk_control`."""
    if policy.HasField("score_certain") or policy.HasField("margin_certain"):
        return TEST_LABELS_DEFAULT
    rate = policy.error_rate_max if policy.HasField("error_rate_max") else ERROR_RATE_MAX_DEFAULT
    wanted = ERRORS_ALLOWED_FOR * (labels_needed(rate) or 0)
    return max(TEST_LABELS_DEFAULT, min(wanted, TEST_LABELS_LATER_MAX))

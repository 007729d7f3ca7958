"""The policy of a Loop with all defaults applied."""

from dataclasses import dataclass
from datetime import timedelta

from vesta_contracts.conductor.v1 import Gate, LoopPolicy
from vesta_contracts.datasets.v1 import SelectionStrategy

BATCH_SIZE_DEFAULT = 50
CONTROL_SHARE_DEFAULT = 0.15
TEST_LABELS_DEFAULT = 100


@dataclass(frozen=True)
class Policy:
    """A `LoopPolicy` with all defaults applied.

    Attributes:
        recipe: empty for the default recipe of the dataset's kind.
        score_certain, margin_certain, score_threshold: None keeps the deployment's value.
        lease_duration: None keeps the campaign's value.
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
    score_certain: float | None
    margin_certain: float | None
    score_threshold: float | None
    strategy: SelectionStrategy.ValueType
    lease_duration: timedelta | None

    @classmethod
    def of(cls, wanted: LoopPolicy) -> "Policy":
        batch_size = wanted.batch_size or BATCH_SIZE_DEFAULT
        return cls(
            dataset=wanted.dataset,
            label_budget=wanted.label_budget,
            batch_size=batch_size,
            retrain_after=wanted.retrain_after or batch_size,
            control_share=wanted.control_share if wanted.HasField("control_share") else CONTROL_SHARE_DEFAULT,
            recipe=wanted.recipe,
            annotators_per_task=wanted.annotators_per_task or 1,
            review_share=wanted.review_share,
            gate=wanted.gate,
            instructions=wanted.instructions,
            test_labels=wanted.test_labels or TEST_LABELS_DEFAULT,
            score_certain=wanted.score_certain if wanted.HasField("score_certain") else None,
            margin_certain=wanted.margin_certain if wanted.HasField("margin_certain") else None,
            score_threshold=wanted.score_threshold if wanted.HasField("score_threshold") else None,
            strategy=wanted.strategy,
            lease_duration=wanted.lease_duration.ToTimedelta() if wanted.HasField("lease_duration") else None,
        )

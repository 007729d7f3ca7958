"""The decision of a task, by answers or by review."""

import pytest
from annotation_builders import an_answer, label
from vesta_annotation.decision import Decision, decide_by_consensus, decide_by_review
from vesta_annotation.task_types.image_labels import ImageLabels
from vesta_common.errors import InvalidArgument
from vesta_contracts.annotation.v1 import Campaign, Review

DISPUTED = [an_answer("ada", "van"), an_answer("bob", "car")]
MOSTLY_VAN = [*DISPUTED, an_answer("cyd", "van")]
AGREED = ImageLabels().consensus(MOSTLY_VAN)


def a_review(decision: "Review.Decision.ValueType", *concepts: str, comment: str = "") -> Review:
    return Review(decision=decision, annotations=[label(one) for one in concepts], comment=comment, reviewer="rosa")


def told(decision: Decision | None) -> tuple[list[str], list[str], str]:
    assert decision is not None
    return [one.concept for one in decision.annotations], list(decision.annotators), decision.reviewer


def test_a_majority_decides_and_names_only_its_experts() -> None:
    assert told(decide_by_consensus("task", AGREED, Campaign())) == (["van"], ["ada", "cyd"], "")


def test_a_tie_requires_a_review() -> None:
    assert decide_by_consensus("task", ImageLabels().consensus(DISPUTED), Campaign()) is None


def test_a_sampled_majority_requires_a_review() -> None:
    assert decide_by_consensus("task", AGREED, Campaign(review_share=1)) is None


def test_a_reviewer_can_accept_the_majority() -> None:
    assert told(decide_by_review(a_review(Review.ACCEPT), MOSTLY_VAN, Campaign())) == (["van"], ["ada", "cyd"], "rosa")


def test_a_correction_overrides_all_answers_and_names_all_experts() -> None:
    decision = decide_by_review(a_review(Review.CORRECT, "bus"), MOSTLY_VAN, Campaign())
    assert told(decision) == (["bus"], ["ada", "bob", "cyd"], "rosa")


def test_a_rejection_decides_nothing() -> None:
    assert decide_by_review(a_review(Review.REJECT, comment="look at the wheels"), MOSTLY_VAN, Campaign()) is None


def test_a_tie_cannot_be_accepted() -> None:
    with pytest.raises(InvalidArgument, match="no majority") as raised:
        decide_by_review(a_review(Review.ACCEPT), DISPUTED, Campaign())
    assert raised.value.reason == "NO_CONSENSUS"


@pytest.mark.parametrize("comment", ["", "  \n"])
def test_a_rejection_contains_its_reason(comment: str) -> None:
    with pytest.raises(InvalidArgument, match="requires a comment") as raised:
        decide_by_review(a_review(Review.REJECT, comment=comment), MOSTLY_VAN, Campaign())
    assert raised.value.reason == "COMMENT_MISSING"

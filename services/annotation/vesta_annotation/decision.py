"""Decides a task: by the consensus of the annotators, otherwise by a reviewer. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from vesta_common.errors import InvalidArgument, Violation
from vesta_contracts.annotation.v1 import Campaign, Review, Submission
from vesta_contracts.common.v1 import Annotation

from vesta_annotation.review_sampling import is_sampled
from vesta_annotation.task_types import Consensus, task_type_of


@dataclass(frozen=True)
class Decision:
    """The accepted annotations of a task.

    Attributes:
        annotators: those whose answers agree with the decision; all of them if a reviewer corrected the answers.
        reviewer: empty if the answers decided.
    """

    annotations: Sequence[Annotation]
    annotators: Sequence[str]
    reviewer: str = ""


def decide_by_consensus(task: str, consensus: Consensus | None, campaign: Campaign) -> Decision | None:
    """Returns the decision of a complete round of answers; None if a reviewer must decide.

    Args:
        task: the task's name. Determines whether the task is sampled for review.
        consensus: of the answers; None if they agree on nothing.
    """
    if consensus is None or consensus.is_disputed or is_sampled(task, campaign.review_share):
        return None
    return _decision(consensus)


def decide_by_review(review: Review, answers: Sequence[Submission], campaign: Campaign) -> Decision | None:
    """Returns the reviewer's decision; None if the review starts another round of answers.

    Raises:
        InvalidArgument: ACCEPT without a majority among the answers, or REJECT without a comment.
    """
    annotators = [answer.annotator for answer in answers]
    if review.decision == Review.CORRECT:
        return Decision(review.annotations, annotators, review.reviewer)
    if review.decision == Review.REJECT:
        if not review.comment.strip():
            raise InvalidArgument(
                "a rejection requires a comment with the reason for the annotators",
                reason="COMMENT_MISSING",
                violations=[Violation("review.comment", "is required for REJECT")],
            )
        return None
    consensus = task_type_of(campaign).consensus(answers)
    if review.decision == Review.RESOLVE:
        agreed = consensus.annotations if consensus else ()
        return Decision([*review.annotations, *agreed], annotators, review.reviewer)
    if consensus is None or consensus.is_disputed:
        raise InvalidArgument(
            "the submissions have no majority to accept; resolve or correct them, or reject them with a comment",
            reason="NO_CONSENSUS",
            violations=[Violation("review.decision", "cannot be ACCEPT without a majority")],
        )
    return _decision(consensus, review.reviewer)


def _decision(consensus: Consensus, reviewer: str = "") -> Decision:
    return Decision(consensus.annotations, consensus.annotators, reviewer)

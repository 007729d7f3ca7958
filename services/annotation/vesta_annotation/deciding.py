"""What becomes of a task when an answer or a review comes. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from vesta_common.errors import InvalidArgument, Violation
from vesta_contracts.annotation.v1 import Review, Submission, Task
from vesta_contracts.common.v1 import Annotation

from vesta_annotation.consensus import find_consensus
from vesta_annotation.review_sampling import is_sampled


@dataclass(frozen=True)
class Outcome:
    """The task's next state.

    Attributes:
        state: OPEN, IN_REVIEW or ACCEPTED.
        annotations: what is accepted.
        annotators: whose answers agreed with it, or all where a reviewer corrected.
        rejected: the round is over without a decision; the next one begins.
    """

    state: "Task.State.ValueType"
    annotations: tuple[Annotation, ...] = ()
    annotators: tuple[str, ...] = ()
    rejected: bool = False


def after_submission(task: str, submissions: Sequence[Submission], replicas: int, review_share: float) -> Outcome:
    """Waits for the other answers; agreement is accepted unless the draw wants it reviewed; disagreement is always reviewed."""
    if len(submissions) < replicas:
        return Outcome(Task.OPEN)
    found = find_consensus(submissions)
    if found is None or not found.unanimous or is_sampled(task, review_share):
        return Outcome(Task.IN_REVIEW)
    return Outcome(Task.ACCEPTED, found.annotations, found.annotators)


def after_review(review: Review, submissions: Sequence[Submission]) -> Outcome:
    """Does what the reviewer says.

    Raises:
        InvalidArgument: ACCEPT where the answers have no majority, or REJECT without a comment.
    """
    if review.decision == Review.REJECT:
        if not review.comment.strip():
            raise InvalidArgument(
                "a rejection needs a comment that tells the experts why",
                reason="COMMENT_MISSING",
                violations=[Violation("review.comment", "is required for REJECT")],
            )
        return Outcome(Task.OPEN, rejected=True)
    if review.decision == Review.CORRECT:
        return Outcome(Task.ACCEPTED, tuple(review.annotations), tuple(one.annotator for one in submissions))
    found = find_consensus(submissions)
    if found is None:
        raise InvalidArgument(
            "the answers have no majority to accept; correct them instead",
            reason="NO_CONSENSUS",
            violations=[Violation("review.decision", "cannot be ACCEPT without a majority")],
        )
    return Outcome(Task.ACCEPTED, found.annotations, found.annotators)

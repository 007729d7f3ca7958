"""gRPC: reviews."""

import grpc
from vesta_common.errors import FailedPrecondition, InvalidArgument, Violation
from vesta_common.idempotency import once
from vesta_common.ids import new_id
from vesta_common.pages import read_page
from vesta_contracts.annotation.v1 import (
    CreateReviewRequest,
    GetReviewRequest,
    ListReviewsRequest,
    ListReviewsResponse,
    Review,
    ReviewServiceServicer,
    Task,
)

from vesta_annotation.answers import check_answer
from vesta_annotation.api.task_service import calling_member, check_lease
from vesta_annotation.deciding import after_review
from vesta_annotation.decisions import carry_out
from vesta_annotation.store import Store


class ReviewService(ReviewServiceServicer):
    """Takes decisions."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def CreateReview(self, request: CreateReviewRequest, context: grpc.ServicerContext) -> Review:
        """Decides a task in review."""
        caller = calling_member()
        if request.review.decision == Review.DECISION_UNSPECIFIED:
            raise InvalidArgument(
                "review.decision is required",
                reason="FIELD_INVALID",
                violations=[Violation("review.decision", "is required")],
            )

        def create() -> Review:
            row = self._store.lock_task(connection, request.parent)
            check_lease(self._store, connection, row, caller)
            if row.state != Task.IN_REVIEW:
                raise FailedPrecondition(f"{row.name} is not in review", reason="TASK_NOT_IN_REVIEW")
            if request.review.decision == Review.CORRECT:
                campaign = self._store.get_campaign(connection, row.campaign)
                check_answer(request.review.annotations, campaign, "review.annotations")
            review = Review()
            review.CopyFrom(request.review)
            review.name, review.reviewer = f"{row.name}/reviews/{new_id()}", caller
            review.create_time.FromDatetime(self._store.clock.now())
            answers = self._store.round_of(connection, row)
            outcome = after_review(review, answers)
            self._store.insert_review(connection, review, row.name)
            carry_out(self._store, connection, row, outcome, len(answers), review)
            return review

        with self._store.postgres.transaction() as connection:
            return once(connection, request, Review, create)

    def GetReview(self, request: GetReviewRequest, context: grpc.ServicerContext) -> Review:
        """One review."""
        with self._store.postgres.transaction() as connection:
            return self._store.get_review(connection, request.name)

    def ListReviews(self, request: ListReviewsRequest, context: grpc.ServicerContext) -> ListReviewsResponse:
        """A task's reviews in order of time."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            self._store.get_tasks(connection, [request.parent])
            after = page.cursor[0] if page.cursor else ""
            found = self._store.list_reviews(connection, request.parent, after, page.limit)
        kept, token = page.cut(found, lambda review: (review.name,))
        return ListReviewsResponse(reviews=kept, next_page_token=token)

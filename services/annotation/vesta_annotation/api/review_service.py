"""The ReviewService of the gRPC API."""

import grpc
from vesta_common.errors import FailedPrecondition
from vesta_common.ids import new_id
from vesta_common.messages import copy_of
from vesta_common.resources.idempotency import once
from vesta_common.resources.methods import find_answer
from vesta_common.resources.names import parent_of
from vesta_common.resources.page_keys import by_name
from vesta_common.resources.pages import read_page, within_bytes
from vesta_common.storage.postgres import Connection
from vesta_contracts.annotation.v1 import (
    CreateReviewRequest,
    GetReviewRequest,
    ListReviewsRequest,
    ListReviewsResponse,
    Review,
    ReviewServiceServicer,
    Task,
)

from vesta_annotation.api.annotation_rules import AnswerRules, RulesSource
from vesta_annotation.api.caller import calling_member
from vesta_annotation.decision import decide_by_review
from vesta_annotation.leases import check_holder
from vesta_annotation.store import Store
from vesta_annotation.task_types import task_type_of


class ReviewService(ReviewServiceServicer):
    """Implements ReviewService."""

    def __init__(self, store: Store, rules: RulesSource) -> None:
        self._store = store
        self._rules = rules

    def CreateReview(self, request: CreateReviewRequest, context: grpc.ServicerContext) -> Review:
        """Decides a task in review, or starts another round of answers."""
        caller = calling_member()
        if answer := find_answer(self._store.postgres, request, Review):
            return answer
        with self._store.transaction() as connection:
            task = self._store.get_task(connection, request.parent)
            _check_in_review(task, caller)
            campaign = self._store.get_campaign(connection, parent_of(task.name))
        rules = None if request.review.decision == Review.REJECT else self._rules.of(task, campaign)
        with self._store.transaction() as connection:
            return once(connection, request, Review, lambda: self._create(connection, request, caller, rules))

    def GetReview(self, request: GetReviewRequest, context: grpc.ServicerContext) -> Review:
        with self._store.transaction() as connection:
            return self._store.get_review(connection, request.name)

    def ListReviews(self, request: ListReviewsRequest, context: grpc.ServicerContext) -> ListReviewsResponse:
        """Lists a task's reviews in order of creation."""
        page = read_page(request)
        with self._store.transaction() as connection:
            self._store.get_tasks(connection, [request.parent])
            rows = self._store.list_reviews(connection, request.parent, page.after, page.limit)
        reviews, token = within_bytes(page, rows).cut(rows, by_name)
        return ListReviewsResponse(reviews=reviews, next_page_token=token)

    def _create(
        self, connection: Connection, request: CreateReviewRequest, caller: str, rules: AnswerRules | None
    ) -> Review:
        task = self._store.lock_task(connection, request.parent)
        _check_in_review(task, caller)
        review = copy_of(request.review, name=f"{task.name}/reviews/{new_id()}", reviewer=caller)
        review.ClearField("disagreements")
        review.disagreements.extend(task.disagreements)
        review.create_time.FromDatetime(self._store.clock.now())
        campaign = self._store.get_campaign(connection, parent_of(task.name))
        decision = decide_by_review(review, self._store.list_round(connection, task), campaign)
        if decision and rules:
            is_accepted = review.decision == Review.ACCEPT
            rules.check(decision.annotations, "submission.annotations" if is_accepted else "review.annotations")
        self._store.insert_review(connection, task, review)
        if decision:
            self._store.accept(connection, task, decision, task_type_of(campaign).key(decision.annotations))
        else:
            self._store.begin_round(connection, task, review)
        return review


def _check_in_review(task: Task, caller: str) -> None:
    """Checks that the task is in review and that the caller holds its lease.

    Raises:
        FailedPrecondition: TASK_DECIDED, LEASE_LOST or TASK_NOT_IN_REVIEW.
    """
    check_holder(task, caller)
    if task.state != Task.IN_REVIEW:
        raise FailedPrecondition(
            f"{task.name} does not have all its submissions yet; review it when its state is IN_REVIEW",
            reason="TASK_NOT_IN_REVIEW",
            metadata={"task": task.name},
        )

"""gRPC: answers."""

import grpc
import psycopg
from vesta_common.errors import AlreadyExists, FailedPrecondition
from vesta_common.idempotency import once
from vesta_common.ids import new_id
from vesta_common.pages import read_page
from vesta_common.postgres import Connection
from vesta_contracts.annotation.v1 import (
    CreateSubmissionRequest,
    GetSubmissionRequest,
    ListSubmissionsRequest,
    ListSubmissionsResponse,
    Submission,
    SubmissionServiceServicer,
    Task,
)

from vesta_annotation.answers import check_answer
from vesta_annotation.api.task_service import calling_member, check_lease
from vesta_annotation.deciding import after_submission
from vesta_annotation.decisions import carry_out
from vesta_annotation.store import Store


class SubmissionService(SubmissionServiceServicer):
    """Takes answers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def CreateSubmission(self, request: CreateSubmissionRequest, context: grpc.ServicerContext) -> Submission:
        """Keeps an answer; with the last one wanted the task is decided or goes to review."""
        caller = calling_member()

        def create() -> Submission:
            row = self._store.lock_task(connection, request.parent)
            campaign = self._store.get_campaign(connection, row.campaign)
            self._refuse_second(connection, row.name, row.round, caller)
            check_lease(self._store, connection, row, caller)
            if row.state != Task.OPEN:
                raise FailedPrecondition(f"{row.name} has all its answers", reason="TASK_IN_REVIEW")
            check_answer(request.submission.annotations, campaign, "submission.annotations")
            submission = Submission()
            submission.CopyFrom(request.submission)
            submission.name = f"{row.name}/submissions/{new_id()}"
            submission.annotator, submission.round = caller, row.round
            submission.create_time.FromDatetime(self._store.clock.now())
            self._store.insert_submission(connection, submission, row.name)
            self._store.drop_lease(connection, row.name, caller)
            answers = self._store.round_of(connection, row)
            outcome = after_submission(row.name, answers, max(1, campaign.replicas), campaign.review_share)
            carry_out(self._store, connection, row, outcome, len(answers))
            return submission

        try:
            with self._store.postgres.transaction() as connection:
                return once(connection, request, Submission, create)
        except psycopg.errors.UniqueViolation as error:
            raise _answered(request.parent) from error

    def GetSubmission(self, request: GetSubmissionRequest, context: grpc.ServicerContext) -> Submission:
        """One answer."""
        with self._store.postgres.transaction() as connection:
            return self._store.get_submission(connection, request.name)

    def ListSubmissions(
        self, request: ListSubmissionsRequest, context: grpc.ServicerContext
    ) -> ListSubmissionsResponse:
        """A task's answers in order of time."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            self._store.get_tasks(connection, [request.parent])
            after = page.cursor[0] if page.cursor else ""
            found = self._store.list_submissions(connection, request.parent, after, page.limit)
        kept, token = page.cut(found, lambda submission: (submission.name,))
        return ListSubmissionsResponse(submissions=kept, next_page_token=token)

    def _refuse_second(self, connection: Connection, task: str, number: int, caller: str) -> None:
        """Says that the caller has answered, rather than that they hold no lease any more."""
        if self._store.has_answered(connection, task, number, caller):
            raise _answered(task)


def _answered(task: str) -> AlreadyExists:
    return AlreadyExists(f"you have answered {task} in this round", reason="TASK_ANSWERED", metadata={"task": task})

"""The SubmissionService of the gRPC API."""

import grpc
from vesta_common.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from vesta_common.ids import new_id
from vesta_common.messages import copy_of
from vesta_common.resources.idempotency import once
from vesta_common.resources.methods import find_answer, missing
from vesta_common.resources.names import parent_of
from vesta_common.resources.page_keys import by_name
from vesta_common.resources.pages import read_page, within_bytes
from vesta_common.storage.postgres import Connection
from vesta_contracts.annotation.v1 import (
    CreateSubmissionRequest,
    GetSubmissionRequest,
    ListSubmissionsRequest,
    ListSubmissionsResponse,
    Submission,
    SubmissionServiceServicer,
    Task,
)

from vesta_annotation.api.annotation_rules import AnswerRules, RulesSource
from vesta_annotation.api.caller import calling_member, visible_annotator
from vesta_annotation.decision import Decision, decide_by_consensus
from vesta_annotation.leases import check_holder
from vesta_annotation.store import Store
from vesta_annotation.task_types import task_type_of


class SubmissionService(SubmissionServiceServicer):
    """Implements SubmissionService."""

    def __init__(self, store: Store, rules: RulesSource) -> None:
        self._store = store
        self._rules = rules

    def CreateSubmission(self, request: CreateSubmissionRequest, context: grpc.ServicerContext) -> Submission:
        """Stores an answer. The last required answer decides the task or moves it to review."""
        caller = calling_member()
        if answer := find_answer(self._store.postgres, request, Submission):
            return answer
        with self._store.transaction() as connection:
            task = self._store.get_task(connection, request.parent)
            self._check_may_answer(connection, task, caller)
            campaign = self._store.get_campaign(connection, parent_of(task.name))
        rules = self._rules.of(task, campaign)
        rules.check(request.submission.annotations, "submission.annotations")
        with self._store.transaction() as connection:
            return once(connection, request, Submission, lambda: self._create(connection, request, caller, rules))

    def GetSubmission(self, request: GetSubmissionRequest, context: grpc.ServicerContext) -> Submission:
        with self._store.transaction() as connection:
            submission = self._store.get_submission(connection, request.name)
            task = self._store.get_task(connection, parent_of(request.name))
        if visible_annotator(task) not in ("", submission.annotator):
            raise missing(request.name)
        return submission

    def ListSubmissions(
        self, request: ListSubmissionsRequest, context: grpc.ServicerContext
    ) -> ListSubmissionsResponse:
        """Lists a task's answers in order of creation."""
        page = read_page(request)
        with self._store.transaction() as connection:
            annotator = visible_annotator(self._store.get_task(connection, request.parent))
            rows = self._store.list_submissions(connection, request.parent, annotator, page.after, page.limit)
        submissions, token = within_bytes(page, rows).cut(rows, by_name)
        return ListSubmissionsResponse(submissions=submissions, next_page_token=token)

    def _check_may_answer(self, connection: Connection, task: Task, caller: str) -> None:
        if self._store.has_answered(connection, task.name, caller):
            raise AlreadyExists(
                f"{task.name} already has a submission of this annotator in this round; lease another task",
                reason="TASK_ANSWERED",
                metadata={"task": task.name},
            )
        check_holder(task, caller)
        if task.state != Task.OPEN:
            raise FailedPrecondition(
                f"{task.name} has all its submissions; review it instead",
                reason="TASK_IN_REVIEW",
                metadata={"task": task.name},
            )

    def _create(
        self, connection: Connection, request: CreateSubmissionRequest, caller: str, rules: AnswerRules
    ) -> Submission:
        task = self._store.lock_task(connection, request.parent)
        self._check_may_answer(connection, task, caller)
        campaign = self._store.get_campaign(connection, parent_of(task.name))
        submission = copy_of(request.submission, name=f"{task.name}/submissions/{new_id()}", annotator=caller)
        submission.round = task.rejection_count + 1
        submission.create_time.FromDatetime(self._store.clock.now())
        task_type = task_type_of(campaign)
        self._store.insert_submission(connection, task, submission, task_type.key(submission.annotations))
        answers = self._store.list_round(connection, task)
        if len(answers) == campaign.annotators_per_task:
            consensus = task_type.consensus(answers)
            decision = decide_by_consensus(task.name, consensus, campaign)
            if decision and _is_sound(decision, rules):
                self._store.accept(connection, task, decision, task_type.key(decision.annotations))
            else:
                self._store.send_to_review(connection, task, consensus)
        return submission


def _is_sound(decision: Decision, rules: AnswerRules) -> bool:
    """Whether the majority's answer is still valid: earlier answers were validated against an earlier taxonomy."""
    try:
        rules.check(decision.annotations, "submission.annotations")
    except InvalidArgument:
        return False
    return True

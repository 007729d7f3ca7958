"""Stores answers and reviews in PostgreSQL."""

from typing import Any

from vesta_common.clock import Clock
from vesta_common.resources.methods import existing
from vesta_common.storage.postgres import Connection
from vesta_contracts.annotation.v1 import Campaign, Review, Submission, Task

from vesta_annotation.agreement import Answer
from vesta_annotation.rows import answer_of
from vesta_annotation.store.statements import queries
from vesta_annotation.task_types import AnnotationTask, task_type_of


class StoredAnswers:
    """The tables of answers and reviews. Every method runs in the transaction that is passed to it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    # Answers

    def insert_submission(
        self, connection: Connection, task: Task, submission: Submission, answer_key: bytes | None
    ) -> None:
        """Inserts an answer, with its key if the task type has keys, and ends its author's lease."""
        annotator, now = submission.annotator, self.clock.now()
        queries.insert_submission(
            connection,
            name=submission.name,
            task=task.name,
            round=submission.round,
            annotator=annotator,
            body=submission.SerializeToString(),
            answer_key=answer_key,
            time_spent=submission.time_spent.ToTimedelta() if submission.HasField("time_spent") else None,
        )
        queries.add_answer(connection, name=task.name, annotator=annotator, now=now)

    def has_answered(self, connection: Connection, task: str, annotator: str) -> bool:
        """Whether the annotator has answered in the task's current round."""
        return bool(queries.has_answered(connection, task=task, annotator=annotator))

    def get_submission(self, connection: Connection, name: str) -> Submission:
        """Returns an answer. Raises NotFound."""
        return Submission.FromString(existing(queries.find_submission(connection, name=name), name)["body"])

    def list_submissions(
        self, connection: Connection, task: str, annotator: str, after: str, limit: int
    ) -> list[Submission]:
        """Returns a task's answers with a name greater than `after`, in order of creation; of all annotators if `annotator` is empty."""
        rows = queries.list_submissions(connection, task=task, annotator=annotator, after=after, limit=limit)
        return [Submission.FromString(row["body"]) for row in rows]

    def list_round(self, connection: Connection, task: Task) -> list[Submission]:
        """Returns the answers of the task's current round, in order of creation."""
        rows = queries.list_round(connection, task=task.name, round=task.rejection_count + 1)
        return [Submission.FromString(row["body"]) for row in rows]

    def list_answers(self, connection: Connection, campaign: Campaign) -> list[Answer]:
        """Returns all answers to a campaign's tasks."""
        task_type = task_type_of(campaign)
        rows = queries.list_answers(connection, campaign=campaign.name, tasks_max=task_type.tasks_measured_max)
        by_key = self._values_by_key(connection, campaign.name, task_type)
        return [answer_of(row, task_type, by_key) for row in rows]

    def _values_by_key(self, connection: Connection, campaign: str, task_type: AnnotationTask[Any]) -> dict[bytes, Any]:
        """Returns what the answers and the decisions of a campaign with each key are compared by."""
        given = queries.list_keyed_answers(connection, campaign=campaign)
        values = {bytes(row["key"]): task_type.value(Submission.FromString(row["body"]).annotations) for row in given}
        decided = queries.list_keyed_decisions(connection, campaign=campaign, known=list(values))
        return values | {bytes(row["key"]): task_type.value(Task.FromString(row["body"]).accepted) for row in decided}

    # Reviews

    def insert_review(self, connection: Connection, task: Task, review: Review) -> None:
        queries.insert_review(connection, name=review.name, task=task.name, body=review.SerializeToString())

    def get_review(self, connection: Connection, name: str) -> Review:
        """Returns a review. Raises NotFound."""
        return Review.FromString(existing(queries.find_review(connection, name=name), name)["body"])

    def list_reviews(self, connection: Connection, task: str, after: str, limit: int) -> list[Review]:
        """Returns a task's reviews with a name greater than `after`, in order of creation."""
        rows = queries.list_reviews(connection, task=task, after=after, limit=limit)
        return [Review.FromString(row["body"]) for row in rows]

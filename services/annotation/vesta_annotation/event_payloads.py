"""Payloads of the events that the service publishes. The service consumes no events. Pure."""

from datetime import datetime

from vesta_contracts.annotation.v1 import Review, Task, TaskAccepted, TaskCancelled, TaskRejected
from vesta_contracts.common.v1 import StoredAnnotations

from vesta_annotation.decision import Decision

TaskEvent = TaskAccepted | TaskRejected | TaskCancelled


def task_accepted(
    task: Task, decision: Decision, now: datetime, stored: StoredAnnotations | None = None
) -> TaskAccepted:
    """Returns the event of an accepted task.

    Args:
        stored: a reference to the annotations of the decision if they are too large for the event.
    """
    accepted = TaskAccepted(
        task=task.name,
        item=task.item,
        annotations=() if stored else decision.annotations,
        stored=stored,
        annotators=decision.annotators,
        reviewer=decision.reviewer,
        control=task.control,
        model_version=task.model_version,
    )
    accepted.accept_time.FromDatetime(now)
    return accepted


def task_rejected(task: Task, review: Review) -> TaskRejected:
    return TaskRejected(task=task.name, item=task.item, reviewer=review.reviewer, comment=review.comment)


def task_cancelled(task: Task) -> TaskCancelled:
    return TaskCancelled(task=task.name, item=task.item)

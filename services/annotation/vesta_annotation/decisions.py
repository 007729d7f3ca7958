"""Carries an outcome out: the task's next state, its leases, and the event that tells of it, in one transaction."""

from dataclasses import replace

from vesta_common.postgres import Connection
from vesta_contracts.annotation.v1 import Review, Task, TaskAccepted, TaskRejected

from vesta_annotation.deciding import Outcome
from vesta_annotation.store import Store, TaskRow


def carry_out(
    store: Store,
    connection: Connection,
    row: TaskRow,
    outcome: Outcome,
    submission_count: int,
    review: Review | None = None,
) -> None:
    """Moves a task on.

    Args:
        submission_count: the answers of its present round.
        review: whose decision it is; None where the answers decided.
    """
    now = store.clock.now()
    if outcome.rejected:
        updated = replace(
            row, state=Task.OPEN, round=row.round + 1, submission_count=0, rejection_count=row.rejection_count + 1
        )
    else:
        updated = replace(row, state=outcome.state, submission_count=submission_count)
    if outcome.state == Task.ACCEPTED:
        del row.task.accepted[:]
        row.task.accepted.extend(outcome.annotations)
        updated = replace(updated, accept_time=now)
    store.update_task(connection, updated)
    if outcome.state != Task.OPEN or outcome.rejected:
        store.drop_leases(connection, row.name)
    if outcome.state == Task.ACCEPTED:
        accepted = TaskAccepted(
            task=row.name,
            item=row.task.item,
            annotations=outcome.annotations,
            annotators=outcome.annotators,
            reviewer=review.reviewer if review else "",
            control=row.task.control,
            model_version=row.task.model_version,
        )
        accepted.accept_time.FromDatetime(now)
        store.publish(connection, row.name, accepted)
    if outcome.rejected and review:
        rejected = TaskRejected(task=row.name, item=row.task.item, reviewer=review.reviewer, comment=review.comment)
        store.publish(connection, row.name, rejected)

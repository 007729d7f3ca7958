"""Rules for leases. An expired lease counts as absent, so that no job needs to delete it. Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from vesta_common.errors import FailedPrecondition
from vesta_contracts.annotation.v1 import Campaign, Lease, Task

LEASE_DURATION_DEFAULT = timedelta(minutes=10)


def expire_time(campaign: Campaign, now: datetime) -> datetime:
    """Returns the expiry time of a lease that begins now."""
    if campaign.HasField("lease_duration"):
        return now + campaign.lease_duration.ToTimedelta()
    return now + LEASE_DURATION_DEFAULT


def running_leases(expire_times: Mapping[str, datetime], now: datetime) -> list[Lease]:
    """Returns the leases that have not expired, ordered by expiry time.

    Args:
        expire_times: by lease holder.
    """
    running = sorted((end, holder) for holder, end in expire_times.items() if end > now)
    leases = [Lease(holder=holder) for _, holder in running]
    for lease, (end, _) in zip(leases, running, strict=True):
        lease.expire_time.FromDatetime(end)
    return leases


def check_undecided(task: Task) -> None:
    """Checks that the task is undecided.

    Raises:
        FailedPrecondition: TASK_DECIDED.
    """
    if task.state in {Task.ACCEPTED, Task.CANCELLED}:
        state_name = Task.State.Name(task.state).lower()
        raise FailedPrecondition(
            f"{task.name} is already {state_name}",
            reason="TASK_DECIDED",
            metadata={"task": task.name, "state": state_name},
        )


def check_holder(task: Task, caller: str) -> None:
    """Checks that the task is undecided and that the caller holds its lease.

    Raises:
        FailedPrecondition: TASK_DECIDED or LEASE_LOST.
    """
    check_undecided(task)
    if all(lease.holder != caller for lease in task.leases):
        raise FailedPrecondition(
            f"{caller} has no lease of {task.name}, or it expired; lease the task again",
            reason="LEASE_LOST",
            metadata={"task": task.name},
        )

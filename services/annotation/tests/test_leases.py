"""The rules for leases."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from vesta_annotation.leases import check_holder, expire_time, running_leases
from vesta_common.errors import FailedPrecondition
from vesta_contracts.annotation.v1 import Campaign, Lease, Task

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_a_campaign_sets_the_lease_duration_and_ten_minutes_are_the_default() -> None:
    assert expire_time(Campaign(lease_duration=Duration(seconds=90)), NOON) == NOON + 90 * SECOND
    assert expire_time(Campaign(), NOON) == NOON + timedelta(minutes=10)


def test_a_lease_is_expired_at_its_end() -> None:
    ends = {"ada": NOON - SECOND, "bob": NOON, "cyd": NOON + 2 * SECOND, "dan": NOON + SECOND}
    assert [lease.holder for lease in running_leases(ends, NOON)] == ["dan", "cyd"]


@given(st.dictionaries(st.text(), st.datetimes().map(lambda naive: naive.replace(tzinfo=UTC))))
def test_only_unexpired_leases_are_active_and_keep_their_ends(ends: dict[str, datetime]) -> None:
    running = {lease.holder: lease.expire_time.ToDatetime(UTC) for lease in running_leases(ends, NOON)}
    assert running == {holder: end for holder, end in ends.items() if end > NOON}


@pytest.mark.parametrize("state", [Task.OPEN, Task.IN_REVIEW])
def test_the_holder_of_an_undecided_task_may_submit(state: "Task.State.ValueType") -> None:
    check_holder(Task(state=state, leases=[Lease(holder="bob"), Lease(holder="ada")]), "ada")


@pytest.mark.parametrize(
    ("state", "holder", "reason"),
    [
        (Task.OPEN, "bob", "LEASE_LOST"),
        (Task.IN_REVIEW, "bob", "LEASE_LOST"),
        (Task.ACCEPTED, "ada", "TASK_DECIDED"),
        (Task.CANCELLED, "ada", "TASK_DECIDED"),
    ],
)
def test_others_may_not_submit_and_nobody_may_for_a_decided_task(
    state: "Task.State.ValueType", holder: str, reason: str
) -> None:
    with pytest.raises(FailedPrecondition) as raised:
        check_holder(Task(name="task", state=state, leases=[Lease(holder=holder)]), "ada")
    assert raised.value.reason == reason

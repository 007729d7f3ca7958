"""Leasing over gRPC: who gets which task, and that no two members get the same."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta

import pytest
from annotation_builders import CAMPAIGN, LEASE, Service, label, member, names
from google.protobuf.duration_pb2 import Duration
from vesta_common import trace
from vesta_common.errors import FailedPrecondition, InvalidArgument, PermissionDenied, Unauthenticated
from vesta_contracts.annotation.v1 import (
    LeasePurpose,
    LeaseTasksRequest,
    ReleaseTaskRequest,
    RenewLeaseRequest,
    Review,
    Task,
)

EXPERTS = [f"m{number}" for number in range(12)]


def release(annotation: Service, name: str, task: Task) -> Task:
    with trace.calling(member(name)):
        return annotation.tasks.ReleaseTask(ReleaseTaskRequest(name=task.name))


def renew(annotation: Service, name: str, task: Task) -> Task:
    with trace.calling(member(name)):
        return annotation.tasks.RenewLease(RenewLeaseRequest(name=task.name))


def test_a_leased_task_says_who_has_it_and_until_when(annotation: Service) -> None:
    annotation.has_task(lease_duration=Duration(seconds=90))
    (task,) = annotation.lease("ada")
    assert [(lease.holder, lease.expire_time.ToDatetime(UTC)) for lease in task.leases] == [
        (member("ada"), annotation.clock.now() + timedelta(seconds=90))
    ]
    assert annotation.task(task) == task


def test_the_highest_priority_comes_first_and_of_equals_the_oldest(annotation: Service) -> None:
    annotation.has_campaign()
    old = annotation.has_tasks("one", "two", priority=0.5)
    urgent = annotation.has_tasks("three", priority=0.9)
    annotation.has_tasks("four", priority=0.1)
    assert names(annotation.lease("ada", count=3)) == [*names(urgent), *sorted(names(old))]


def test_a_task_for_one_expert_is_not_handed_to_another(annotation: Service) -> None:
    annotation.has_task()
    assert len(annotation.lease("ada")) == 1
    assert annotation.lease("bob") == []


def test_leasing_again_brings_what_one_has_so_that_a_lost_answer_loses_nothing(annotation: Service) -> None:
    annotation.has_campaign()
    annotation.has_tasks("one", "two")
    assert names(annotation.lease("ada")) == names(annotation.lease("ada"))


def test_only_as_many_are_busy_as_answers_are_missing(annotation: Service) -> None:
    task = annotation.has_task(annotators_per_task=3)
    annotation.answer("ada", task, "van")
    assert [len(annotation.lease(name)) for name in ("bob", "cyd", "dan")] == [1, 1, 0]


def test_whoever_has_answered_does_not_get_the_task_again_in_this_round(annotation: Service) -> None:
    task = annotation.has_task(annotators_per_task=2)
    annotation.answer("ada", task, "van")
    assert annotation.lease("ada") == []
    annotation.answer("bob", task, "car")
    annotation.lease_to_review("rosa")
    annotation.review("rosa", task, Review.REJECT, comment="look again")
    assert names(annotation.lease("ada")) == [task.name]


def test_a_lease_that_ran_out_goes_to_the_next(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    annotation.clock.advance(LEASE - timedelta(seconds=1))
    assert annotation.lease("bob") == []
    annotation.clock.advance(timedelta(seconds=1))
    assert list(annotation.task(task).leases) == []
    assert [lease.holder for lease in annotation.lease("bob")[0].leases] == [member("bob")]
    with pytest.raises(FailedPrecondition) as raised:
        annotation.submit("ada", task, label("van"))
    assert raised.value.reason == "LEASE_LOST"


def test_a_renewed_lease_begins_anew(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    annotation.clock.advance(LEASE / 2)
    (lease,) = renew(annotation, "ada", task).leases
    assert lease.expire_time.ToDatetime(UTC) == annotation.clock.now() + LEASE


def test_a_lost_lease_cannot_be_renewed(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    annotation.clock.advance(LEASE)
    with pytest.raises(FailedPrecondition) as raised:
        renew(annotation, "ada", task)
    assert raised.value.reason == "LEASE_LOST"


def test_what_is_given_back_is_free_at_once(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    assert list(release(annotation, "ada", task).leases) == []
    assert len(annotation.lease("bob")) == 1


def test_giving_back_what_another_has_changes_nothing(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    assert [lease.holder for lease in release(annotation, "bob", task).leases] == [member("ada")]


def test_leases_change_neither_etag_nor_update_time(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.clock.advance(timedelta(minutes=1))
    (leased,) = annotation.lease("ada")
    assert (leased.etag, leased.update_time) == (task.etag, task.update_time)


def test_one_reviewer_at_a_time_and_never_of_ones_own_answer(annotation: Service) -> None:
    task = annotation.is_disputed()
    assert annotation.lease_to_review("ada") == []
    assert names(annotation.lease_to_review("rosa")) == [task.name]
    assert annotation.lease_to_review("rolf") == []
    annotation.clock.advance(LEASE)
    assert names(annotation.lease_to_review("rolf")) == [task.name]


@pytest.mark.parametrize("role", ["", "viewer", "annotator"])
def test_reviews_are_for_reviewers(annotation: Service, role: str) -> None:
    annotation.is_disputed()
    with pytest.raises(PermissionDenied) as raised:
        annotation.lease_to_review("rosa", role=role)
    assert raised.value.reason == "ROLE_TOO_LOW"


def test_the_owner_reviews_their_own_answer_where_there_is_no_other_work(annotation: Service) -> None:
    own = annotation.is_disputed()
    assert names(annotation.lease_to_review("ada", role="owner")) == [own.name]
    release(annotation, "ada", own)
    others = annotation.has_tasks("two", priority=-1)[0]
    annotation.answer("bob", others, "van")
    annotation.answer("cyd", others, "car")
    assert names(annotation.lease_to_review("ada", role="owner")) == [others.name]


def test_a_purpose_is_needed(annotation: Service) -> None:
    annotation.has_campaign()
    with pytest.raises(InvalidArgument, match="purpose"):
        annotation.tasks.LeaseTasks(LeaseTasksRequest(parent=CAMPAIGN))


def test_a_service_on_nobodys_behalf_gets_no_task(annotation: Service) -> None:
    annotation.has_task()
    request = LeaseTasksRequest(parent=CAMPAIGN, purpose=LeasePurpose.LEASE_PURPOSE_ANNOTATE)
    with pytest.raises(Unauthenticated) as raised:
        annotation.tasks.LeaseTasks(request)
    assert raised.value.reason == "CALLER_UNKNOWN"


@pytest.mark.parametrize("annotators_per_task", [1, 2])
def test_experts_who_race_never_get_more_of_a_task_than_it_wants(annotation: Service, annotators_per_task: int) -> None:
    annotation.has_campaign(annotators_per_task=annotators_per_task)
    annotation.has_tasks(*(f"i{number}" for number in range(60)))

    def greedy(name: str) -> set[tuple[str, str]]:
        """Leases all available tasks, a few at a time; returns members and tasks."""
        return {(name, task) for count in (1, 5, 20, 60) for task in names(annotation.lease(name, count))}

    with ThreadPoolExecutor(len(EXPERTS)) as pool:
        handed = set().union(*pool.map(greedy, EXPERTS))
    assert max(Counter(task for _, task in handed).values()) <= annotators_per_task
    handed.update(*map(greedy, EXPERTS))  # tasks that were skipped while other members locked them
    assert set(Counter(task for _, task in handed).values()) == {annotators_per_task}
    assert len(handed) == 60 * annotators_per_task

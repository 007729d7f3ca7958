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


def test_a_leased_task_contains_its_annotator_and_expiry(annotation: Service) -> None:
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


def test_an_assigned_task_is_not_leased_to_another_expert(annotation: Service) -> None:
    annotation.has_task()
    assert len(annotation.lease("ada")) == 1
    assert annotation.lease("bob") == []


def test_leasing_again_returns_the_tasks_that_are_already_leased(annotation: Service) -> None:
    annotation.has_campaign()
    annotation.has_tasks("one", "two")
    assert names(annotation.lease("ada")) == names(annotation.lease("ada"))


def test_a_task_is_leased_at_most_as_often_as_answers_are_missing(annotation: Service) -> None:
    task = annotation.has_task(annotators_per_task=3)
    annotation.answer("ada", task, "van")
    assert [len(annotation.lease(name)) for name in ("bob", "cyd", "dan")] == [1, 1, 0]


def test_an_annotator_gets_a_task_once_per_round(annotation: Service) -> None:
    task = annotation.has_task(annotators_per_task=2)
    annotation.answer("ada", task, "van")
    assert annotation.lease("ada") == []
    annotation.answer("bob", task, "car")
    annotation.lease_to_review("rosa")
    annotation.review("rosa", task, Review.REJECT, comment="look again")
    assert names(annotation.lease("ada")) == [task.name]


def test_a_task_with_an_expired_lease_is_leased_to_another_annotator(annotation: Service) -> None:
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


def test_a_renewed_lease_has_its_full_duration(annotation: Service) -> None:
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


def test_a_released_task_can_be_leased_immediately(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    assert list(release(annotation, "ada", task).leases) == []
    assert len(annotation.lease("bob")) == 1


def test_releasing_a_task_of_another_annotator_changes_nothing(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.lease("ada")
    assert [lease.holder for lease in release(annotation, "bob", task).leases] == [member("ada")]


def test_leases_change_neither_etag_nor_update_time(annotation: Service) -> None:
    task = annotation.has_task()
    annotation.clock.advance(timedelta(minutes=1))
    (leased,) = annotation.lease("ada")
    assert (leased.etag, leased.update_time) == (task.etag, task.update_time)


def test_a_review_is_leased_to_one_reviewer_who_has_not_answered_the_task(annotation: Service) -> None:
    task = annotation.is_disputed()
    assert annotation.lease_to_review("ada") == []
    assert names(annotation.lease_to_review("rosa")) == [task.name]
    assert annotation.lease_to_review("rolf") == []
    annotation.clock.advance(LEASE)
    assert names(annotation.lease_to_review("rolf")) == [task.name]


@pytest.mark.parametrize("role", ["", "viewer", "annotator"])
def test_only_reviewers_lease_reviews(annotation: Service, role: str) -> None:
    annotation.is_disputed()
    with pytest.raises(PermissionDenied) as raised:
        annotation.lease_to_review("rosa", role=role)
    assert raised.value.reason == "ROLE_TOO_LOW"


def test_the_owner_reviews_own_answers_if_nothing_else_is_due(annotation: Service) -> None:
    own = annotation.is_disputed()
    assert names(annotation.lease_to_review("ada", role="owner")) == [own.name]
    release(annotation, "ada", own)
    others = annotation.has_tasks("two", priority=-1)[0]
    annotation.answer("bob", others, "van")
    annotation.answer("cyd", others, "car")
    assert names(annotation.lease_to_review("ada", role="owner")) == [others.name]


def test_leasing_requires_a_purpose(annotation: Service) -> None:
    annotation.has_campaign()
    with pytest.raises(InvalidArgument, match="purpose"):
        annotation.tasks.LeaseTasks(LeaseTasksRequest(parent=CAMPAIGN))


def test_a_service_without_a_member_gets_no_task(annotation: Service) -> None:
    annotation.has_task()
    request = LeaseTasksRequest(parent=CAMPAIGN, purpose=LeasePurpose.LEASE_PURPOSE_ANNOTATE)
    with pytest.raises(Unauthenticated) as raised:
        annotation.tasks.LeaseTasks(request)
    assert raised.value.reason == "CALLER_UNKNOWN"


@pytest.mark.parametrize("annotators_per_task", [1, 2])
def test_concurrent_leases_never_exceed_the_required_answers(annotation: Service, annotators_per_task: int) -> None:
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

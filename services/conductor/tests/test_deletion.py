"""Deletion of projects: rejected for a project that is not empty; with force everything is deleted, despite kills and failures."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import grpc
import pytest
from conductor_builders import DATASET, PROJECT
from conductor_simulation import SimulatedPlatform
from vesta.resources import resource_types
from vesta_common.clock import ManualClock
from vesta_common.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound, Unavailable
from vesta_common.rpc.client import open_channel
from vesta_common.rpc.server import Server
from vesta_common.storage.postgres import Postgres
from vesta_conductor import store
from vesta_conductor.api.loop_service import LoopService
from vesta_conductor.api.project_service import ProjectService
from vesta_conductor.projects.child_resources import PEERS, ChildResource, child_resources_of
from vesta_conductor.projects.deletion import PASS_INTERVAL, SETTLED, Deletions
from vesta_conductor.store.deletions import LEASE_DURATION
from vesta_contracts.conductor.v1 import (
    CreateLoopRequest,
    CreateProjectRequest,
    DeleteProjectRequest,
    GetProjectRequest,
    ListProjectsRequest,
    Loop,
    LoopPolicy,
    LoopServiceStub,
    Project,
    ProjectServiceStub,
    UpdateProjectRequest,
)
from vesta_local.testing import identity_of

OTHER = "projects/other"


class Killed(Exception):
    """Simulates a kill of the process."""


@dataclass
class Services:
    """The resources of other services, by kind. The deletion of a kind is rejected while a kind that blocks it exists.

    Attributes:
        before: called before and after each call; may raise.
    """

    held: dict[str, set[str]]
    stops: dict[str, str] = field(default_factory=dict)
    before: Callable[[], None] = lambda: None

    def kinds(self) -> list[ChildResource]:
        return [ChildResource(plural, self._names(plural), self._delete(plural)) for plural in self.held]

    def left(self, project: str) -> int:
        return sum(name.startswith(f"{project}/") for names in self.held.values() for name in names)

    def _names(self, plural: str) -> Callable[[str], list[str]]:
        def names(project: str) -> list[str]:
            self.before()
            return sorted(name for name in self.held[plural] if name.startswith(f"{project}/"))

        return names

    def _delete(self, plural: str) -> Callable[[str], None]:
        def delete(name: str) -> None:
            self.before()
            if self.held.get(self.stops.get(plural, ""), set()):
                raise FailedPrecondition(f"{name} is in use", reason="IN_USE")
            if name not in self.held[plural]:
                raise NotFound(f"{name} does not exist")
            self.held[plural].remove(name)
            self.before()

        return delete


def some_services(**held: int) -> Services:
    counts = held or {"campaigns": 2, "taxonomies": 1, "datasets": 3}
    return Services(
        {
            plural: {f"{project}/{plural}/x{number}" for number in range(count) for project in (PROJECT, OTHER)}
            for plural, count in counts.items()
        }
    )


@dataclass
class Conductor:
    """The service's stubs, the resources of other services, and the worker that deletes them."""

    projects: ProjectServiceStub
    loops: LoopServiceStub
    services: Services
    postgres: Postgres
    clock: ManualClock

    def worker(self) -> Deletions:
        return Deletions(self.postgres, self.services.kinds(), self.clock)

    def delete(self, **fields: object) -> Project:
        return self.projects.DeleteProject(DeleteProjectRequest(**{"name": PROJECT, **fields}))

    def state(self) -> Project:
        listed = self.projects.ListProjects(ListProjectsRequest(names=[PROJECT], show_deleted=True)).projects
        return listed[0]

    def finish(self) -> None:
        for _ in range(20):
            self.worker().step()
            self.clock.advance(SETTLED)


@pytest.fixture
def conductor(postgres_url: str, postgres_schema: str) -> Iterator[Conductor]:
    postgres = Postgres(postgres_url, postgres_schema).open()
    postgres.migrate("vesta_conductor")
    clock, services = ManualClock(), some_services()
    peers = SimulatedPlatform(clock, random.Random(0)).peers()
    deletions = Deletions(postgres, services.kinds(), clock)
    servicers = [ProjectService(postgres, deletions, clock), LoopService(postgres, peers, clock)]
    server = Server(identity_of("conductor"), "127.0.0.1:0", servicers)
    server.start()
    channel: grpc.Channel = open_channel(server.address, identity_of("gateway"))
    found = Conductor(ProjectServiceStub(channel), LoopServiceStub(channel), services, postgres, clock)
    for project_id in ("acme", "other"):
        found.projects.CreateProject(CreateProjectRequest(project_id=project_id, project=Project(display_name="A")))
    yield found
    channel.close()
    server.stop()
    postgres.close()


def a_loop(conductor: Conductor, loop_id: str = "vans") -> Loop:
    wanted = Loop(policy=LoopPolicy(dataset=DATASET))
    return conductor.loops.CreateLoop(CreateLoopRequest(parent=PROJECT, loop_id=loop_id, loop=wanted))


class TestAsking:
    def test_deleting_a_project_that_is_not_empty_is_rejected_with_counts(self, conductor: Conductor) -> None:
        a_loop(conductor)
        with pytest.raises(FailedPrecondition, match="1 loops, 2 campaigns, 1 taxonomies, 3 datasets") as refused:
            conductor.delete()
        assert refused.value.reason == "PROJECT_NOT_EMPTY"
        assert refused.value.metadata["datasets"] == "3"
        assert conductor.state().state == Project.ACTIVE

    def test_an_empty_project_needs_no_force(self, conductor: Conductor) -> None:
        for names in conductor.services.held.values():
            names.clear()
        assert conductor.delete().state == Project.DELETING

    def test_deleting_without_force_requires_all_counts(self, conductor: Conductor) -> None:
        def away() -> None:
            raise Unavailable("datasets is away")

        conductor.services.before = away
        with pytest.raises(Unavailable):
            conductor.delete()
        assert conductor.delete(force=True).state == Project.DELETING

    def test_a_stale_etag_deletes_nothing(self, conductor: Conductor) -> None:
        read = conductor.projects.GetProject(GetProjectRequest(name=PROJECT))
        changed = Project(name=PROJECT, display_name="New")
        conductor.projects.UpdateProject(UpdateProjectRequest(project=changed))
        with pytest.raises(Aborted):
            conductor.delete(force=True, etag=read.etag)
        assert conductor.state().state == Project.ACTIVE

    def test_a_second_deletion_returns_the_state_of_the_first(self, conductor: Conductor) -> None:
        first = conductor.delete(force=True)
        assert conductor.delete() == first

    def test_a_repeated_request_returns_the_first_response_after_the_deletion(self, conductor: Conductor) -> None:
        first = conductor.delete(force=True, request_id="r1")
        conductor.finish()
        assert conductor.delete(force=True, request_id="r1") == first
        with pytest.raises(NotFound):
            conductor.delete(force=True)

    def test_nothing_is_created_in_a_project_during_its_deletion(self, conductor: Conductor) -> None:
        conductor.delete(force=True)
        with pytest.raises(FailedPrecondition) as refused:
            a_loop(conductor)
        assert refused.value.reason == "PROJECT_DELETING"
        with pytest.raises(FailedPrecondition):
            conductor.projects.UpdateProject(UpdateProjectRequest(project=Project(name=PROJECT, display_name="New")))


class TestDeleting:
    def test_a_deletion_deletes_all_resources_of_the_project_and_no_others(self, conductor: Conductor) -> None:
        a_loop(conductor)
        others = conductor.services.left(OTHER)
        conductor.delete(force=True)
        conductor.finish()
        assert conductor.services.left(PROJECT) == 0
        assert conductor.services.left(OTHER) == others
        with conductor.postgres.transaction() as connection:
            assert store.count_loops(connection, PROJECT) == 0
        with pytest.raises(NotFound):
            conductor.projects.GetProject(GetProjectRequest(name=PROJECT))
        left = conductor.projects.ListProjects(ListProjectsRequest()).projects
        assert [project.name for project in left] == [OTHER]

    def test_the_id_of_a_deleted_project_cannot_be_reused(self, conductor: Conductor) -> None:
        conductor.delete(force=True)
        conductor.finish()
        assert conductor.state().state == Project.DELETED
        with pytest.raises(AlreadyExists, match="was deleted"):
            conductor.projects.CreateProject(CreateProjectRequest(project_id="acme", project=Project()))

    def test_a_rejected_deletion_is_reported_and_retried(self, conductor: Conductor) -> None:
        conductor.services.stops["taxonomies"] = "datasets"
        conductor.delete(force=True)
        conductor.worker().step()
        told = conductor.state()
        assert told.state == Project.DELETING
        assert "1 taxonomies left" in told.message
        assert "is in use" in told.message
        assert not conductor.worker().step()  # not at once
        conductor.services.stops.clear()
        conductor.clock.advance(PASS_INTERVAL)
        assert conductor.worker().step()
        assert conductor.services.left(PROJECT) == 0

    def test_resources_that_running_calls_create_are_deleted(self, conductor: Conductor) -> None:
        conductor.delete(force=True)
        conductor.worker().step()
        assert conductor.services.left(PROJECT) == 0
        conductor.services.held["campaigns"].add(f"{PROJECT}/campaigns/late")
        assert conductor.state().state == Project.DELETING
        conductor.finish()
        assert conductor.services.left(PROJECT) == 0
        assert conductor.state().state == Project.DELETED

    def test_an_unavailable_service_is_reported_and_awaited(self, conductor: Conductor) -> None:
        def away() -> None:
            raise Unavailable("datasets is away")

        conductor.services.before = away
        conductor.delete(force=True)
        conductor.worker().step()
        assert "datasets is away" in conductor.state().message
        conductor.services.before = lambda: None
        conductor.finish()
        assert conductor.state().state == Project.DELETED

    @pytest.mark.parametrize("seed", range(10))
    def test_a_deletion_completes_after_a_crash_at_any_step(self, conductor: Conductor, seed: int) -> None:
        chance = random.Random(seed)
        kills = 0

        def kill() -> None:
            nonlocal kills
            if chance.random() < 0.3:
                kills += 1
                raise Killed

        others = conductor.services.left(OTHER)
        conductor.services.before = kill
        conductor.delete(force=True)
        for _ in range(200):
            try:
                conductor.worker().step()
            except Killed:
                conductor.clock.advance(LEASE_DURATION)
            conductor.clock.advance(PASS_INTERVAL)
            if conductor.state().state == Project.DELETED:
                break
        assert conductor.state().state == Project.DELETED
        assert kills
        assert (conductor.services.left(PROJECT), conductor.services.left(OTHER)) == (0, others)


def test_every_kind_of_resource_below_a_project_is_deleted() -> None:
    channels = {peer: grpc.insecure_channel("127.0.0.1:1") for peer in PEERS}
    deleted = {kind.plural for kind in child_resources_of(channels)}
    below = {
        kind.plural
        for kind in resource_types()
        if kind.pattern.startswith("projects/{project}/") and kind.pattern.count("/") == 3
    }
    kept_by_the_gateway, kept_here = {"members", "apiKeys"}, {"loops"}
    assert deleted == below - kept_by_the_gateway - kept_here


@pytest.mark.parametrize(("advance", "ends"), [(SETTLED - timedelta(seconds=1), False), (SETTLED, True)])
def test_a_deletion_completes_after_running_calls_have_ended(
    conductor: Conductor, advance: timedelta, ends: bool
) -> None:
    conductor.delete(force=True)
    conductor.worker().step()
    conductor.clock.advance(advance)
    conductor.worker().step()
    assert (conductor.state().state == Project.DELETED) == ends

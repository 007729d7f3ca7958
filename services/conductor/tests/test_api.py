"""The ProjectService and LoopService on a real database, with simulated services."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import grpc
import pytest
from conductor_builders import DATASET, PROJECT, a_situation, an_observed_state
from conductor_simulation import SimulatedPlatform
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from vesta_common.clock import ManualClock
from vesta_common.errors import Aborted, AlreadyExists, InvalidArgument, NotFound, VestaError
from vesta_common.rpc.client import open_channel
from vesta_common.rpc.server import Server
from vesta_common.rpc.validation import validate
from vesta_common.storage.postgres import Postgres
from vesta_conductor import store
from vesta_conductor.api.loop_service import LoopService
from vesta_conductor.api.project_service import ProjectService
from vesta_conductor.projects.deletion import Deletions
from vesta_conductor.reconciliation.names import LoopNames
from vesta_conductor.reconciliation.reconcile import reconcile
from vesta_conductor.reconciliation.state import Command, RoundOutcome
from vesta_conductor.store.loop_queue import claim_loop
from vesta_conductor.task_types import TASK_TYPES
from vesta_contracts.annotation.v1 import CreateCampaignRequest
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.conductor.v1 import (
    CreateLoopRequest,
    CreateProjectRequest,
    DeleteLoopRequest,
    GetLoopRequest,
    GetProjectRequest,
    ListDecisionsRequest,
    ListLoopsRequest,
    ListProjectsRequest,
    Loop,
    LoopPolicy,
    LoopServiceStub,
    LoopStatus,
    Project,
    ProjectServiceStub,
    UpdateLoopRequest,
    UpdateProjectRequest,
)
from vesta_local.testing import identity_of


@dataclass
class Conductor:
    """The service's stubs and its database.

    Attributes:
        asked: the methods of other services that were called.
        platform: the other services.
    """

    projects: ProjectServiceStub
    loops: LoopServiceStub
    postgres: Postgres
    clock: ManualClock
    asked: list[str]
    platform: SimulatedPlatform

    def topics_told(self) -> list[str]:
        with self.postgres.transaction() as connection:
            return [row["topic"] for row in connection.execute("SELECT topic FROM outbox ORDER BY id")]


@pytest.fixture
def conductor(postgres_url: str, postgres_schema: str) -> Iterator[Conductor]:
    postgres = Postgres(postgres_url, postgres_schema).open()
    postgres.migrate("vesta_conductor")
    clock = ManualClock()
    asked: list[str] = []
    platform = SimulatedPlatform(clock, random.Random(0))
    peers = platform.peers(before=asked.append)
    projects = ProjectService(postgres, Deletions(postgres, (), clock), clock)
    server = Server(identity_of("conductor"), "127.0.0.1:0", [projects, LoopService(postgres, peers, clock)])
    server.start()
    channel: grpc.Channel = open_channel(server.address, identity_of("gateway"))
    yield Conductor(ProjectServiceStub(channel), LoopServiceStub(channel), postgres, clock, asked, platform)
    channel.close()
    server.stop()
    postgres.close()


def a_project(conductor: Conductor, project_id: str = "acme", **fields: str) -> Project:
    return conductor.projects.CreateProject(CreateProjectRequest(project_id=project_id, project=Project(**fields)))


def a_loop(conductor: Conductor, loop_id: str = "vans", request_id: str = "", **policy: object) -> Loop:
    wanted = Loop(display_name="Vans", policy=LoopPolicy(**{"dataset": DATASET, "label_budget": 100, **policy}))
    return conductor.loops.CreateLoop(
        CreateLoopRequest(parent=PROJECT, loop_id=loop_id, loop=wanted, request_id=request_id)
    )


def test_the_id_of_a_loop_is_also_that_of_its_campaign(conductor: Conductor) -> None:
    a_project(conductor)
    loop = a_loop(conductor, "")
    named = replace(a_situation(observed=an_observed_state(campaign=None)), names=LoopNames(loop.name, DATASET))
    command = reconcile(named).command
    assert command is not None
    assert isinstance(command.request, CreateCampaignRequest)
    validate(command.request)


class TestProjects:
    def test_a_project_is_stored_and_published_once(self, conductor: Conductor) -> None:
        made = a_project(conductor, display_name="Acme")
        assert (made.name, made.display_name) == ("projects/acme", "Acme")
        assert conductor.projects.GetProject(GetProjectRequest(name=made.name)) == made
        assert conductor.topics_told() == ["vesta.conductor.project.v1"]

    def test_an_id_is_generated_if_none_is_given(self, conductor: Conductor) -> None:
        assert len(a_project(conductor, "").name) > len("projects/")

    def test_a_repeated_request_returns_the_first_project(self, conductor: Conductor) -> None:
        request = CreateProjectRequest(project_id="acme", project=Project(), request_id="r1")
        assert conductor.projects.CreateProject(request) == conductor.projects.CreateProject(request)
        assert len(conductor.topics_told()) == 1

    def test_an_existing_id_is_rejected(self, conductor: Conductor) -> None:
        a_project(conductor)
        with pytest.raises(AlreadyExists, match="exists") as refused:
            a_project(conductor)
        assert refused.value.reason == "PROJECT_EXISTS"

    def test_an_unknown_project_is_not_found(self, conductor: Conductor) -> None:
        with pytest.raises(NotFound) as refused:
            conductor.projects.GetProject(GetProjectRequest(name="projects/nobody"))
        assert refused.value.reason == "PROJECT_NOT_FOUND"

    def test_projects_are_listed_by_name_in_pages_and_by_request(self, conductor: Conductor) -> None:
        for project_id in ("c", "a", "b"):
            a_project(conductor, project_id)
        first = conductor.projects.ListProjects(ListProjectsRequest(page_size=2))
        assert [project.name for project in first.projects] == ["projects/a", "projects/b"]
        second = conductor.projects.ListProjects(ListProjectsRequest(page_size=2, page_token=first.next_page_token))
        assert [project.name for project in second.projects] == ["projects/c"]
        own = conductor.projects.ListProjects(ListProjectsRequest(names=["projects/b", "projects/zzz"]))
        assert [project.name for project in own.projects] == ["projects/b"]

    def test_a_stale_etag_changes_nothing(self, conductor: Conductor) -> None:
        made = a_project(conductor)
        changed = Project(name=made.name, display_name="New", etag=made.etag)
        assert conductor.projects.UpdateProject(UpdateProjectRequest(project=changed)).display_name == "New"
        with pytest.raises(Aborted):
            conductor.projects.UpdateProject(UpdateProjectRequest(project=changed))


class TestLoops:
    @pytest.fixture(autouse=True)
    def project(self, conductor: Conductor) -> None:
        a_project(conductor)

    def test_a_loop_is_stored_with_its_first_round_and_is_due_immediately(self, conductor: Conductor) -> None:
        made = a_loop(conductor)
        assert made.name == "projects/acme/loops/vans"
        assert [found.number for found in made.status.rounds] == [1]
        assert conductor.loops.GetLoop(GetLoopRequest(name=made.name)) == made
        with conductor.postgres.transaction() as connection:
            claimed = claim_loop(connection, conductor.clock.now())
        assert claimed
        assert claimed.loop == made.name

    def test_a_repeated_request_returns_the_first_loop_and_calls_no_peer(self, conductor: Conductor) -> None:
        made = a_loop(conductor, request_id="r1")
        conductor.asked.clear()
        assert a_loop(conductor, request_id="r1") == made
        assert not conductor.asked

    def test_an_existing_id_is_rejected(self, conductor: Conductor) -> None:
        a_loop(conductor)
        with pytest.raises(AlreadyExists) as refused:
            a_loop(conductor)
        assert refused.value.reason == "LOOP_EXISTS"

    @pytest.mark.parametrize(
        ("policy", "error", "reason"),
        [
            ({"dataset": "projects/acme/datasets/nothing"}, NotFound, ""),
            ({"dataset": "projects/other/datasets/vans"}, InvalidArgument, "DATASET_IN_OTHER_PROJECT"),
            ({"recipe": "projects/acme/recipes/nothing"}, NotFound, ""),
            ({"recipe": "projects/other/recipes/classification"}, InvalidArgument, "RECIPE_IN_OTHER_PROJECT"),
            ({"recipe": "projects/acme/recipes/multilabel"}, InvalidArgument, "TASK_TYPE_MISMATCH"),
            ({"control_share": 0.01}, InvalidArgument, "FIELD_INVALID"),
            ({"strategy": 99}, InvalidArgument, "FIELD_INVALID"),
            ({"lease_duration": Duration(seconds=0)}, InvalidArgument, "FIELD_INVALID"),
            ({"dataset": ""}, InvalidArgument, "FIELD_INVALID"),
        ],
    )
    def test_an_invalid_policy_is_rejected(
        self, conductor: Conductor, policy: dict[str, object], error: type[VestaError], reason: str
    ) -> None:
        with pytest.raises(error) as refused:
            a_loop(conductor, **policy)
        assert not reason or refused.value.reason == reason

    @pytest.mark.parametrize(
        "task_type", sorted(set(TaskType.values()) - {TaskType.TASK_TYPE_UNSPECIFIED} - TASK_TYPES.keys())
    )
    def test_a_dataset_of_a_task_type_that_no_model_learns_is_rejected(
        self, conductor: Conductor, task_type: TaskType.ValueType
    ) -> None:
        conductor.platform.task_type = task_type
        with pytest.raises(InvalidArgument, match=r"is for .*; choose classification, multi-label") as refused:
            a_loop(conductor)
        assert refused.value.reason == "TASK_TYPE_UNSUPPORTED"

    def test_a_loop_requires_its_project(self, conductor: Conductor) -> None:
        wanted = Loop(policy=LoopPolicy(dataset="projects/other/datasets/vans"))
        with pytest.raises(NotFound):
            conductor.loops.CreateLoop(CreateLoopRequest(parent="projects/other", loop=wanted))

    def test_loops_are_listed_by_name(self, conductor: Conductor) -> None:
        for loop_id in ("b", "a"):
            a_loop(conductor, loop_id)
        page = conductor.loops.ListLoops(ListLoopsRequest(parent=PROJECT, page_size=1))
        assert [loop.name for loop in page.loops] == [f"{PROJECT}/loops/a"]
        rest = conductor.loops.ListLoops(ListLoopsRequest(parent=PROJECT, page_size=1, page_token=page.next_page_token))
        assert [loop.name for loop in rest.loops] == [f"{PROJECT}/loops/b"]

    def test_an_update_changes_the_fields_of_the_mask_and_counts_as_a_new_policy(self, conductor: Conductor) -> None:
        made = a_loop(conductor)
        wanted = Loop(name=made.name, policy=LoopPolicy(label_budget=500), etag=made.etag)
        updated = conductor.loops.UpdateLoop(
            UpdateLoopRequest(loop=wanted, update_mask=FieldMask(paths=["policy.label_budget"]))
        )
        assert (updated.policy.label_budget, updated.policy.dataset) == (500, DATASET)
        with conductor.postgres.transaction() as connection:
            kept = store.load(connection, made.name)
        assert kept is not None
        assert kept.policy_revision == 2
        with pytest.raises(Aborted):
            conductor.loops.UpdateLoop(UpdateLoopRequest(loop=wanted))

    def test_a_new_name_is_no_new_policy(self, conductor: Conductor) -> None:
        made = a_loop(conductor)
        conductor.loops.UpdateLoop(UpdateLoopRequest(loop=Loop(name=made.name, display_name="Better")))
        with conductor.postgres.transaction() as connection:
            kept = store.load(connection, made.name)
        assert kept is not None
        assert (kept.policy_revision, kept.loop.display_name) == (1, "Better")

    def test_status_changes_do_not_change_the_etag(self, conductor: Conductor) -> None:
        made = a_loop(conductor)
        with conductor.postgres.transaction() as connection:
            kept = store.load(connection, made.name)
            assert kept is not None
            store.put_status(connection, kept, LoopStatus(phase=LoopStatus.TRAINING))
        found = conductor.loops.GetLoop(GetLoopRequest(name=made.name))
        assert found.status.phase == LoopStatus.TRAINING
        assert found.etag == made.etag

    @pytest.mark.parametrize(
        ("policy", "path"),
        [
            (LoopPolicy(dataset="projects/acme/datasets/cats"), "policy.dataset"),
            (LoopPolicy(annotators_per_task=3), "policy.annotators_per_task"),
        ],
    )
    def test_fields_that_the_campaign_depends_on_cannot_change(
        self, conductor: Conductor, policy: LoopPolicy, path: str
    ) -> None:
        made = a_loop(conductor)
        with pytest.raises(InvalidArgument, match="is immutable") as refused:
            conductor.loops.UpdateLoop(
                UpdateLoopRequest(loop=Loop(name=made.name, policy=policy), update_mask=FieldMask(paths=[path]))
            )
        assert refused.value.reason == "FIELD_IMMUTABLE"

    def test_setting_a_default_explicitly_is_no_change(self, conductor: Conductor) -> None:
        made = a_loop(conductor)
        one = Loop(name=made.name, policy=LoopPolicy(annotators_per_task=1))
        update = UpdateLoopRequest(loop=one, update_mask=FieldMask(paths=["policy.annotators_per_task"]))
        assert conductor.loops.UpdateLoop(update).policy.annotators_per_task == 1

    def test_an_update_to_an_unknown_recipe_is_rejected(self, conductor: Conductor) -> None:
        made = a_loop(conductor)
        policy = LoopPolicy(recipe="projects/acme/recipes/nothing")
        with pytest.raises(NotFound):
            conductor.loops.UpdateLoop(
                UpdateLoopRequest(
                    loop=Loop(name=made.name, policy=policy), update_mask=FieldMask(paths=["policy.recipe"])
                )
            )

    def test_a_recreated_loop_continues_the_round_numbers_of_the_deleted_one(self, conductor: Conductor) -> None:
        made = a_loop(conductor)
        with conductor.postgres.transaction() as connection:
            kept = store.load(connection, made.name)
            assert kept is not None
            store.end_round(
                connection, made.name, kept.history.current, RoundOutcome.PROMOTED, 1, conductor.clock.now()
            )
        conductor.loops.DeleteLoop(DeleteLoopRequest(name=made.name))
        with pytest.raises(NotFound):
            conductor.loops.GetLoop(GetLoopRequest(name=made.name))
        again = a_loop(conductor)
        assert [found.number for found in again.status.rounds] == [3]

    def test_decisions_are_listed_newest_first_in_pages(self, conductor: Conductor) -> None:
        made = a_loop(conductor)
        with conductor.postgres.transaction() as connection:
            for number in range(3):
                command = Command(f"id{number}", "ask", f"reason {number}", made.name)
                assert store.insert_decision(connection, made.name, command, 1, conductor.clock.now())
            assert store.insert_decision(connection, made.name, command, 1, conductor.clock.now()) is None
        first = conductor.loops.ListDecisions(ListDecisionsRequest(parent=made.name, page_size=2))
        assert [decision.reason for decision in first.decisions] == ["reason 2", "reason 1"]
        request = ListDecisionsRequest(parent=made.name, page_size=2, page_token=first.next_page_token)
        assert [decision.reason for decision in conductor.loops.ListDecisions(request).decisions] == ["reason 0"]

    @pytest.mark.parametrize("method", ["GetLoop", "UpdateLoop", "DeleteLoop", "ListDecisions"])
    def test_an_unknown_loop_is_not_found(self, conductor: Conductor, method: str) -> None:
        name = f"{PROJECT}/loops/nobody"
        requests = {
            "GetLoop": GetLoopRequest(name=name),
            "UpdateLoop": UpdateLoopRequest(loop=Loop(name=name, policy=LoopPolicy(dataset=DATASET))),
            "DeleteLoop": DeleteLoopRequest(name=name),
            "ListDecisions": ListDecisionsRequest(parent=name),
        }
        with pytest.raises(NotFound) as refused:
            getattr(conductor.loops, method)(requests[method])
        assert refused.value.reason == "LOOP_NOT_FOUND"

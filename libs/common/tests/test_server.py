"""A server refuses with details, hides what is its own, follows the trace, and stops gracefully."""

from collections.abc import Iterator

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vesta_common import trace
from vesta_common.errors import Internal, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from vesta_common.rpc.client import open_channel
from vesta_common.rpc.server import Server
from vesta_contracts.annotation.v1 import GetTaskRequest, ListTasksRequest, Task, TaskServiceServicer, TaskServiceStub
from vesta_local.testing import identity_of

NAME = "projects/acme/campaigns/vans/tasks/t1"


class Tasks(TaskServiceServicer):
    """Answers as its name asks."""

    def GetTask(self, request, context):
        match request.name.rpartition("/")[2]:
            case "gone":
                raise NotFound("it is gone", reason="GONE", metadata={"name": request.name})
            case "broken":
                raise ValueError("the password is 1234")
            case "full":
                raise psycopg.errors.DiskFull("could not extend file")
            case "away":
                raise psycopg.OperationalError("connection refused")
        return Task(name=request.name, selection_reason=f"{trace.caller()} {trace.service()} {trace.trace_id()}")


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server(identity_of("annotation"), "127.0.0.1:0", [Tasks()])
    found.start()
    found.set_healthy(healthy=True)
    yield found
    found.stop()


@pytest.fixture
def tasks(server: Server) -> Iterator[TaskServiceStub]:
    with open_channel(server.address, identity_of("conductor")) as channel:
        yield TaskServiceStub(channel)


def test_an_error_arrives_as_it_was_raised(tasks: TaskServiceStub) -> None:
    with pytest.raises(NotFound) as refused:
        tasks.GetTask(GetTaskRequest(name="projects/acme/campaigns/vans/tasks/gone"))
    assert (refused.value.reason, refused.value.message) == ("GONE", "it is gone")


def test_a_mistake_of_ours_tells_nothing_but_its_trace(tasks: TaskServiceStub) -> None:
    with pytest.raises(Internal) as refused:
        tasks.GetTask(GetTaskRequest(name="projects/acme/campaigns/vans/tasks/broken"))
    assert "1234" not in refused.value.message
    assert "trace" in refused.value.message


def test_an_engine_that_is_away_is_unavailable(tasks: TaskServiceStub) -> None:
    with pytest.raises(Unavailable) as refused:
        tasks.GetTask(GetTaskRequest(name="projects/acme/campaigns/vans/tasks/away"), timeout=5)
    assert refused.value.reason == "ENGINE_UNAVAILABLE"


def test_a_database_without_room_is_told_as_full_storage(tasks: TaskServiceStub) -> None:
    with pytest.raises(ResourceExhausted) as refused:
        tasks.GetTask(GetTaskRequest(name="projects/acme/campaigns/vans/tasks/full"))
    assert refused.value.reason == "STORAGE_FULL"


def test_a_request_that_breaks_a_rule_never_reaches_the_service(tasks: TaskServiceStub) -> None:
    with pytest.raises(InvalidArgument):
        tasks.GetTask(GetTaskRequest(name="nonsense"))


def test_caller_service_and_trace_go_along(tasks: TaskServiceStub) -> None:
    with trace.span("test", {}), trace.calling("projects/acme/members/ada"):
        expected = trace.trace_id()
        told = tasks.GetTask(GetTaskRequest(name=NAME)).selection_reason
    assert told == f"projects/acme/members/ada conductor {expected}"


def test_what_is_not_implemented_says_so(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as refused:
        TaskServiceStub(channel).ListTasks(
            ListTasksRequest(parent="projects/acme/campaigns/vans"),
            metadata=[identity_of("gateway").metadata("annotation")],
        )
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_health_is_what_the_service_says(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        server.set_healthy(healthy=False)
        assert stub.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.NOT_SERVING

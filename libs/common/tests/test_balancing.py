"""Calls are spread over all replicas of a peer, and a replica that stops fails none of them."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vesta_common.rpc.addresses import target_of
from vesta_common.rpc.client import open_channel
from vesta_common.rpc.server import Server
from vesta_contracts.annotation.v1 import GetTaskRequest, Task, TaskServiceServicer, TaskServiceStub
from vesta_local.testing import identity_of

REQUEST = GetTaskRequest(name="projects/acme/campaigns/vans/tasks/t1")
PATIENCE_SECONDS = 20.0


def token() -> list[tuple[str, str]]:
    """The metadata of a call by the gateway."""
    return [identity_of("gateway").metadata("annotation")]


class Tasks(TaskServiceServicer):
    """Answers who answers, and over which connection."""

    def __init__(self, replica: str) -> None:
        self._replica = replica

    def GetTask(self, request, context):
        return Task(name=self._replica, selection_reason=context.peer())


@contextmanager
def a_replica(name: str, address: str = "127.0.0.1:0", **settings: timedelta) -> Iterator[Server]:
    server = Server(identity_of("annotation"), address, [Tasks(name)], **settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def replicas() -> Iterator[list[Server]]:
    with a_replica("first") as first, a_replica("second") as second:
        yield [first, second]


def addresses(servers: list[Server]) -> str:
    return ",".join(server.address for server in servers)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("datasets:9000", "datasets:9000"),
        ("dns:///datasets:9000", "dns:///datasets:9000"),
        ("10.0.0.1:1", "10.0.0.1:1"),
        ("10.0.0.1:1, 10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2"),
        ("ipv4:10.0.0.1:1,10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ("", ""),
    ],
)
def test_an_address_becomes_what_grpc_resolves(address: str, target: str) -> None:
    assert target_of(address) == target


@pytest.mark.parametrize("address", ["a:1,b:2", "10.0.0.1:1,10.0.0.2", "10.0.0.1:1,[::1]:1"])
def test_a_list_of_anything_but_addresses_of_one_kind_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="list"):
        target_of(address)


def test_each_of_two_replicas_gets_half_of_the_calls(replicas: list[Server]) -> None:
    with open_channel(addresses(replicas), identity_of("gateway")) as channel:
        tasks = TaskServiceStub(channel)
        until(lambda: tasks.GetTask(REQUEST).name != tasks.GetTask(REQUEST).name)
        found = Counter(tasks.GetTask(REQUEST).name for _ in range(40))
    assert found == {"first": 20, "second": 20}


def test_a_replica_that_drains_answers_but_gets_no_more_calls(replicas: list[Server]) -> None:
    first, _ = replicas
    with open_channel(addresses(replicas), identity_of("gateway")) as channel:
        tasks = TaskServiceStub(channel)
        until(lambda: tasks.GetTask(REQUEST).name == "first")
        first.drain()
        until(lambda: {tasks.GetTask(REQUEST).name for _ in range(4)} == {"second"})
        assert {tasks.GetTask(REQUEST).name for _ in range(20)} == {"second"}
    with grpc.insecure_channel(first.address) as channel:  # who does not watch its health
        assert TaskServiceStub(channel).GetTask(REQUEST, metadata=token()).name == "first"


def test_a_server_with_many_watchers_that_come_and_go_while_its_health_changes_still_answers() -> None:
    with a_replica("only") as server, ExitStack() as stack:
        for turn in range(60):
            channel = stack.enter_context(
                grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)])
            )
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)
            next(watch)
            server.set_healthy(healthy=bool(turn % 2))
            watch.cancel()
        assert TaskServiceStub(channel).GetTask(REQUEST, metadata=token(), timeout=PATIENCE_SECONDS).name == "only"


def test_a_replica_with_a_component_that_is_not_well_still_gets_calls(replicas: list[Server]) -> None:
    with open_channel(addresses(replicas), identity_of("gateway")) as channel:
        for server in replicas:
            server.set_healthy(healthy=False)
        assert TaskServiceStub(channel).GetTask(REQUEST).name in {"first", "second"}


def test_a_call_outlasts_the_time_until_the_successor_of_the_only_replica_answers() -> None:
    with (
        ExitStack() as stack,
        a_replica("first") as first,
        open_channel(first.address, identity_of("gateway")) as channel,
    ):
        tasks = TaskServiceStub(channel)
        until(lambda: tasks.GetTask(REQUEST).name == "first")
        first.drain()
        first.stop()
        port = first.address
        begin = threading.Timer(1.5, lambda: stack.enter_context(a_replica("second", port)))
        begin.start()
        try:
            assert tasks.GetTask(REQUEST).name == "second"
        finally:
            begin.join()


def test_replicas_that_are_restarted_one_after_the_other_fail_no_call() -> None:
    failures: list[Exception] = []
    answers: Counter[str] = Counter()
    stopping = threading.Event()
    with ExitStack() as others:
        servers = [others.enter_context(a_replica(name)) for name in ("first", "second")]
        with open_channel(addresses(servers), identity_of("gateway")) as channel:
            tasks = TaskServiceStub(channel)

            def call() -> None:
                while not stopping.is_set():
                    try:
                        answers[tasks.GetTask(REQUEST, timeout=5).name] += 1
                    except Exception as error:  # noqa: BLE001 - none may come
                        failures.append(error)

            callers = [threading.Thread(target=call) for _ in range(4)]
            for caller in callers:
                caller.start()

            def is_left(name: str) -> bool:
                """Whether a replica got none of the next 40 calls, as while a service drains."""
                before, count = answers[name], answers.total()
                until(lambda: answers.total() >= count + 40)
                return answers[name] == before

            for number, server in enumerate(servers):
                server.drain()
                until(lambda number=number: is_left(("first", "second")[number]))
                server.stop()
                others.enter_context(a_replica(f"new {number}", server.address))
                until(lambda number=number: answers[f"new {number}"] > 0)
            stopping.set()
            for caller in callers:
                caller.join()
    assert failures == []


def test_connections_are_made_anew_without_a_failed_call() -> None:
    with a_replica("only", connection_age_max=timedelta(milliseconds=50)) as server, ExitStack() as stack:
        tasks = TaskServiceStub(stack.enter_context(open_channel(server.address, identity_of("gateway"))))
        peers: set[str] = set()

        def is_renewed() -> bool:
            peers.add(tasks.GetTask(REQUEST).selection_reason)
            return len(peers) > 2

        until(is_renewed)

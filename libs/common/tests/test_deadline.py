"""The deadline of a call limits the calls that are made on its behalf."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest
from vesta_common import deadline
from vesta_common.rpc.client import CALL_TIMEOUT_SECONDS, open_channel
from vesta_common.rpc.server import Server
from vesta_contracts.annotation.v1 import GetTaskRequest, Task, TaskServiceServicer, TaskServiceStub
from vesta_local.testing import identity_of

NAME = GetTaskRequest(name="projects/acme/campaigns/vans/tasks/t1")


class LastService(TaskServiceServicer):
    """Returns the seconds until its deadline."""

    def GetTask(self, request, context):
        return Task(name=request.name, selection_reason=str(context.time_remaining()))


class MiddleService(TaskServiceServicer):
    """Returns what its peer returns; its calls have the default timeout."""

    def __init__(self, peer: TaskServiceStub) -> None:
        self._peer = peer

    def GetTask(self, request, context):
        return self._peer.GetTask(request)


@pytest.fixture
def middle() -> Iterator[TaskServiceStub]:
    last = Server(identity_of("annotation"), "127.0.0.1:0", [LastService()])
    last.start()
    last.set_healthy(healthy=True)
    with open_channel(last.address, identity_of("conductor")) as to_last:
        server = Server(identity_of("annotation"), "127.0.0.1:0", [MiddleService(TaskServiceStub(to_last))])
        server.start()
        server.set_healthy(healthy=True)
        with open_channel(server.address, identity_of("conductor")) as channel:
            yield TaskServiceStub(channel)
        server.stop()
    last.stop()


def test_the_deadline_of_a_call_reaches_the_peer_of_the_peer(middle: TaskServiceStub) -> None:
    assert 0 < float(middle.GetTask(NAME, timeout=12).selection_reason) <= 12
    assert 12 < float(middle.GetTask(NAME).selection_reason) < CALL_TIMEOUT_SECONDS + 2


def test_without_a_deadline_a_timeout_is_not_changed() -> None:
    with deadline.within(None):
        assert deadline.limited(30) == 30
        assert not deadline.has_passed()


def test_the_earlier_of_two_deadlines_applies() -> None:
    with deadline.within(10):
        with deadline.within(60):
            assert 0 < deadline.limited(30) <= 10
        with deadline.within(5):
            assert 0 < deadline.limited(30) <= 5
        assert 5 < deadline.limited(30) <= 10
    assert deadline.limited(30) == 30


def test_a_deadline_that_has_passed_leaves_a_positive_timeout() -> None:
    with deadline.within(0):
        assert deadline.has_passed()
        assert deadline.limited(30) == deadline.TIMEOUT_MIN_SECONDS


def test_a_copy_of_the_context_has_the_deadline_in_another_thread() -> None:
    with ThreadPoolExecutor(1) as pool, deadline.within(10):
        assert pool.submit(copy_context().run, deadline.limited, 30).result() <= 10
        assert pool.submit(deadline.limited, 30).result() == 30


def test_work_for_several_callers_has_a_deadline_of_its_own() -> None:
    with deadline.within(10):
        before = deadline.find()
        assert before is not None
        with deadline.until(before + 50):
            assert 50 < deadline.limited(90) <= 60
        with deadline.until(None):
            assert (deadline.find(), deadline.limited(90)) == (None, 90)
        assert deadline.find() == before

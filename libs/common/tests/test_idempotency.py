"""The same request_id returns the first answer, in its own project only."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from vesta_common import trace
from vesta_common.errors import InvalidArgument
from vesta_common.resources.idempotency import once
from vesta_common.storage.postgres import Postgres
from vesta_contracts.annotation.v1 import BatchCreateTasksRequest, BatchCreateTasksResponse, Task


def ask(postgres: Postgres, request: BatchCreateTasksRequest, effects: list[str]) -> BatchCreateTasksResponse:
    def effect() -> BatchCreateTasksResponse:
        effects.append(request.parent)
        return BatchCreateTasksResponse(tasks=[Task(name=f"t{len(effects)}")])

    return postgres.run(lambda connection: once(connection, request, BatchCreateTasksResponse, effect))


def a_request(project: str = "acme", request_id: str = "r1", item: str = "a") -> BatchCreateTasksRequest:
    return BatchCreateTasksRequest(
        parent=f"projects/{project}/campaigns/c", tasks=[Task(item=item)], request_id=request_id
    )


def test_a_repeat_returns_the_first_answer(postgres: Postgres) -> None:
    effects: list[str] = []
    assert ask(postgres, a_request(), effects) == ask(postgres, a_request(), effects)
    assert len(effects) == 1


def test_without_a_request_id_every_call_has_its_effect(postgres: Postgres) -> None:
    effects: list[str] = []
    ask(postgres, a_request(request_id=""), effects)
    ask(postgres, a_request(request_id=""), effects)
    assert len(effects) == 2


def test_an_id_used_for_another_request_is_refused(postgres: Postgres) -> None:
    ask(postgres, a_request(), [])
    with pytest.raises(InvalidArgument) as refused:
        ask(postgres, a_request(item="b"), [])
    assert refused.value.reason == "REQUEST_ID_REUSED"


def test_another_project_may_use_the_same_id(postgres: Postgres) -> None:
    effects: list[str] = []
    ask(postgres, a_request(), effects)
    ask(postgres, a_request(project="other"), effects)
    assert len(effects) == 2


def test_another_caller_may_use_the_same_id(postgres: Postgres) -> None:
    effects: list[str] = []
    for caller in ("projects/acme/members/ada", "projects/acme/members/bob"):
        with trace.calling(caller):
            ask(postgres, a_request(), effects)
    assert len(effects) == 2


def test_what_failed_may_be_asked_again(postgres: Postgres) -> None:
    def fail() -> BatchCreateTasksResponse:
        raise RuntimeError("not this time")

    with pytest.raises(RuntimeError):
        postgres.run(lambda connection: once(connection, a_request(), BatchCreateTasksResponse, fail))
    assert ask(postgres, a_request(), []).tasks[0].name == "t1"


def test_a_repeat_that_races_with_the_first_waits_and_gets_its_answer(postgres: Postgres) -> None:
    effects: list[str] = []
    begun, finish = threading.Event(), threading.Event()

    def slow() -> BatchCreateTasksResponse:
        begun.set()
        assert finish.wait(20)
        effects.append("first")
        return BatchCreateTasksResponse(tasks=[Task(name="t1")])

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(
            postgres.run, lambda connection: once(connection, a_request(), BatchCreateTasksResponse, slow)
        )
        assert begun.wait(20)
        second = threads.submit(ask, postgres, a_request(), effects)
        wait_for_a_lock(postgres)
        finish.set()
        assert first.result(20) == second.result(20)
    assert effects == ["first"]


def wait_for_a_lock(postgres: Postgres) -> None:
    """Until some transaction waits for another one's."""
    deadline = time.monotonic() + 20
    with postgres.connect(autocommit=True) as watching:
        while not watching.execute(
            "SELECT 1 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
        ).fetchone():
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)

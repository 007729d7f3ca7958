"""A service starts in order, says when it can work, stops when told, and its loops survive what they do."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vesta_common.errors import ResourceExhausted, Unavailable
from vesta_common.rpc.server import ACCEPTING_CALLS, Server
from vesta_common.runtime.service import STOP_TIMEOUT, App, BackgroundTask, stop_app
from vesta_local.testing import identity_of, identity_settings

PATIENCE_SECONDS = 20.0
SAMPLE = """
import threading
from pydantic_settings import SettingsConfigDict
from vesta_common.runtime.service import App, run
from vesta_common.settings import ServiceSettings


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="VESTA_SAMPLE_", frozen=True, extra="forbid")


def build(settings):
    print("building", flush=True)
    if {waits}:
        threading.Event().wait()
    return App([])


run("sample", Settings, build, {{"count": lambda settings: 3}})
"""


def a_process(*arguments: str, waits: bool = False, drain_ms: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SAMPLE.format(waits=waits), *arguments],
        env={
            **os.environ,
            "VESTA_SAMPLE_POSTGRES_URL": "postgresql://nobody@127.0.0.1:1/none",
            "VESTA_SAMPLE_DRAIN_MS": str(drain_ms),
            **{f"VESTA_SAMPLE_{name.upper()}": value for name, value in identity_settings("sample").items()},
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_service_serves_at_once_and_leaves_when_told() -> None:
    with a_process() as process:
        assert process.stderr is not None
        started = json.loads(process.stderr.readline())
        with grpc.insecure_channel(started["address"]) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert started["event"] == "service_started"
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert process.returncode == 0
    assert "service_stopped" in told


def test_a_service_that_is_told_to_leave_says_so_and_still_answers_until_it_is_told_again() -> None:
    with a_process(drain_ms=60_000) as process:
        assert process.stderr is not None
        started = json.loads(process.stderr.readline())
        with grpc.insecure_channel(started["address"]) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            told = health.Watch(health_pb2.HealthCheckRequest(service=ACCEPTING_CALLS), wait_for_ready=True)
            assert next(told).status == health_pb2.HealthCheckResponse.SERVING
            process.send_signal(signal.SIGTERM)
            assert next(told).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with grpc.insecure_channel(started["address"]) as late:  # new connections are taken too
            answer = health_pb2_grpc.HealthStub(late).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0


def test_a_service_that_waits_for_its_engines_leaves_when_told() -> None:
    with a_process(waits=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0


@pytest.mark.parametrize(("command", "status"), [("count", 3), ("dance", 2)])
def test_a_command_answers_its_status_and_an_unknown_one_is_refused(command: str, status: int) -> None:
    with a_process(command) as process:
        _, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == status
    assert ("count" in told) is (command == "dance")


class Part:
    """Writes down what is done to it."""

    def __init__(self, name: str, done: list[str], *, breaks: bool = False) -> None:
        self._name, self._done, self._breaks = name, done, breaks

    def start(self) -> None:
        self._done.append(f"start {self._name}")

    def stop(self, timeout: timedelta) -> None:
        self._done.append(f"stop {self._name}")
        assert timedelta() < timeout <= STOP_TIMEOUT
        if self._breaks:
            raise RuntimeError("cannot")

    def healthy(self) -> bool:
        return True


def test_parts_stop_in_reverse_even_where_one_cannot() -> None:
    done: list[str] = []
    server = Server(identity_of("sample"), "127.0.0.1:0", [])
    server.start()
    app = App([], [Part("relay", done), Part("consumer", done, breaks=True)], closing=[lambda: done.append("close")])
    stop_app(app, server)
    assert done == ["stop consumer", "stop relay", "close"]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_a_loop_works_on_while_there_is_more_then_rests_until_woken() -> None:
    steps: list[int] = []

    def step() -> bool:
        steps.append(len(steps))
        return len(steps) < 3

    loop = BackgroundTask("sample", step, timedelta(hours=1))
    loop.start()
    wait_for(lambda: len(steps) == 3)
    loop.wake()
    wait_for(lambda: len(steps) == 4)
    loop.stop(timedelta(seconds=PATIENCE_SECONDS))
    assert not loop.healthy()


@pytest.mark.parametrize("error", [Unavailable("not now"), ValueError("a mistake")])
def test_a_loop_survives_what_its_step_raises(error: Exception) -> None:
    failures: list[int] = []

    def step() -> bool:
        failures.append(1)
        raise error

    loop = BackgroundTask("sample", step, timedelta(hours=1))
    loop.start()
    wait_for(lambda: len(failures) >= 2)
    assert loop.healthy()
    loop.stop(timedelta(seconds=PATIENCE_SECONDS))


def test_a_loop_rests_no_longer_than_the_error_itself_asks_for() -> None:
    failures: list[int] = []

    def step() -> bool:
        failures.append(1)
        raise ResourceExhausted("full", retry_after=timedelta(milliseconds=1))

    loop = BackgroundTask("sample", step, timedelta(hours=1))
    loop.start()
    wait_for(lambda: len(failures) > 20)  # by its own back-off that would take minutes
    loop.stop(timedelta(seconds=PATIENCE_SECONDS))


def test_a_loop_tells_a_long_step_to_end() -> None:
    ending = threading.Event()
    loop = BackgroundTask("sample", lambda: not ending.wait(), timedelta(hours=1), on_stop=ending.set)
    loop.start()
    loop.stop(timedelta(seconds=PATIENCE_SECONDS))
    assert not loop.healthy()

"""What hinders the platform is told at the gateway, with what helps, to people and probes."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vesta_common.rpc.health import READY

PATIENCE_SECONDS = 20.0


def vesta_status(address: str) -> subprocess.CompletedProcess[str]:
    """Runs `vesta status` as anybody."""
    command = [sys.executable, "-m", "vesta.cli.main", "--address", address, "--api-key", "none", "status"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_unreachable_service_is_reported_with_a_suggestion(start_gateway: Callable[..., Any]) -> None:
    running = start_gateway(datasets_address="127.0.0.1:9")
    health = httpx.get(f"{running.url}/healthz").json()
    (away,) = [problem for problem in health["problems"] if problem.startswith("datasets: ")]
    assert "it does not respond (UNAVAILABLE); check that it is running" in away
    deadline = time.monotonic() + PATIENCE_SECONDS
    while away not in (status := vesta_status(running.gateway.grpc_address)).stdout:
        assert time.monotonic() < deadline, status
    assert status.returncode == 1


def test_the_gateway_reports_its_problems_to_people_and_probes(start_gateway: Callable[..., Any]) -> None:
    running = start_gateway(kafka_bootstrap="127.0.0.1:9", health_address="127.0.0.1:0")

    def problems() -> list[str]:
        return [
            str(problem)
            for problem in httpx.get(f"{running.url}/healthz").json()["problems"]
            if problem.startswith("gateway: Kafka")
        ]

    running.until(lambda: bool(problems()) and "checked" not in problems()[0], seconds=PATIENCE_SECONDS)
    assert problems() == [
        "gateway: Kafka does not respond; check that it is running, and KAFKA_BOOTSTRAP, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD"
    ]
    with grpc.insecure_channel(running.gateway.health_address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        ready = stub.Check(health_pb2.HealthCheckRequest(service=READY))  # it answers without Kafka
        assert ready.status == health_pb2.HealthCheckResponse.SERVING


def test_a_draining_gateway_fails_the_probe_with_a_message(start_gateway: Callable[..., Any]) -> None:
    running = start_gateway(health_address="127.0.0.1:0")
    with grpc.insecure_channel(running.gateway.health_address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        running.gateway._health.drain()
        with pytest.raises(grpc.RpcError) as refused:
            stub.Check(health_pb2.HealthCheckRequest(service=READY))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION

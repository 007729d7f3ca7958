"""What hinders the platform is told at the gateway, with what helps, to people and probes."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx

PATIENCE_SECONDS = 20.0


def vesta_status(address: str) -> subprocess.CompletedProcess[str]:
    """Runs `vesta status` as anybody."""
    command = [sys.executable, "-m", "vesta.cli.main", "--address", address, "--api-key", "none", "status"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_service_that_is_away_is_told_with_what_helps(start_gateway: Callable[..., Any]) -> None:
    running = start_gateway(datasets_address="127.0.0.1:9")
    health = httpx.get(f"{running.url}/healthz").json()
    (away,) = [problem for problem in health["problems"] if problem.startswith("datasets: ")]
    assert "it does not answer (UNAVAILABLE); see whether it runs" in away
    deadline = time.monotonic() + PATIENCE_SECONDS
    while away not in (status := vesta_status(running.gateway.grpc_address)).stdout:
        assert time.monotonic() < deadline, status
    assert status.returncode == 1

"""Fixtures: a running gateway with fake services behind it."""

import asyncio
import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gateway_services import Services
from vesta_common import trace
from vesta_common.clock import SystemClock
from vesta_common.rpc.server import Server
from vesta_contracts.gateway.v1 import ProjectEvent
from vesta_gateway import app
from vesta_gateway.settings import Settings
from vesta_local.testing import identity_of

OWNER_KEY = "vesta_owner-of-the-platform"


@pytest.fixture(scope="session", autouse=True)
def _tracing() -> None:
    trace.start_tracing("gateway")


@dataclass
class Running:
    """A gateway that answers."""

    gateway: app.Gateway
    services: Services
    settings: Settings
    loop: asyncio.AbstractEventLoop
    owner_key: str = OWNER_KEY

    @property
    def url(self) -> str:
        """Of REST."""
        return f"http://{self.gateway.rest_address}"

    def rest(self, key: str = OWNER_KEY) -> httpx.Client:
        """A client of REST."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, verify=False)  # saves reading certificates

    def channel(self) -> grpc.Channel:
        """A channel to gRPC."""
        return grpc.insecure_channel(self.gateway.grpc_address)

    def member(self, project: str, role: str, member_id: str = "") -> str:
        """Makes a project if there is none, a member and a key; answers the secret."""
        member_id = member_id or role
        with self.rest() as client:
            if f"projects/{project}" not in self.services.projects:
                client.post("/v1/projects", params={"projectId": project}, json={}).raise_for_status()
            if member_id != "owner":
                client.post(
                    f"/v1/projects/{project}/members",
                    params={"memberId": member_id},
                    json={"role": f"ROLE_{role.upper()}"},
                ).raise_for_status()
            answer = client.post(
                f"/v1/projects/{project}/apiKeys", json={"member": f"projects/{project}/members/{member_id}"}
            ).raise_for_status()
        return str(answer.json()["secret"])

    def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Waits for a condition."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.01)

    def publish(
        self, event_type: str = "vesta.annotation.task.v1.accepted", project: str = "projects/acme", event_id: str = "1"
    ) -> None:
        """Hands an event to those who watch, as the tail would."""
        event = ProjectEvent(id=event_id, type=event_type, subject=f"{project}/campaigns/c/tasks/t")
        self.loop.call_soon_threadsafe(self.gateway.watchers.publish, project, event)


@pytest.fixture
def start_gateway(service_settings: Callable[[str], dict[str, Any]]) -> Iterator[Callable[..., Running]]:
    """Starts gateways with settings of the test's own."""
    stops: list[Callable[[], None]] = []

    def start(**overrides: Any) -> Running:
        services = Services()
        server = Server(identity_of("test"), "127.0.0.1:0", services.servicers())
        server.start()
        addresses = {
            f"{word}_address": server.address
            for word in ("connection", "datasets", "annotation", "training", "serving", "pipelining", "conductor")
        }
        digest = hashlib.sha256(OWNER_KEY.encode()).hexdigest()
        settings = Settings(**{**service_settings("gateway"), **addresses, "owner_key_sha256": digest, **overrides})
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        gateway = asyncio.run_coroutine_threadsafe(_started(settings), loop).result(60)

        def stop() -> None:
            asyncio.run_coroutine_threadsafe(gateway.stop(), loop).result(20)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()
            server.stop()

        stops.append(stop)
        return Running(gateway, services, settings, loop)

    yield start
    for stop in stops:
        stop()


@pytest.fixture
def running(start_gateway: Callable[..., Running]) -> Running:
    """A gateway with the usual settings."""
    return start_gateway()


async def _started(settings: Settings) -> app.Gateway:
    gateway = app.Gateway(settings, SystemClock())
    await gateway.start()
    return gateway

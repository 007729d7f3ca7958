"""A running gateway, and behind it one small real server that stands for all services: it keeps what it is told and says who told it."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty
from vesta_common import trace
from vesta_common.clock import SystemClock
from vesta_common.errors import FailedPrecondition, NotFound, ResourceExhausted
from vesta_common.rpc.server import Server
from vesta_contracts.conductor.v1 import ListProjectsResponse, Project, ProjectServiceServicer
from vesta_contracts.connection.v1 import SourceServiceServicer, UploadItemResponse
from vesta_contracts.datasets.v1 import (
    Dataset,
    DatasetServiceServicer,
    ItemServiceServicer,
    ListDatasetsResponse,
    SearchItemsResponse,
)
from vesta_contracts.gateway.v1 import ProjectEvent
from vesta_contracts.serving.v1 import DeploymentServiceServicer, ImagePrediction, PredictResponse
from vesta_gateway import app
from vesta_gateway.settings import Settings
from vesta_local.testing import identity_of

OWNER_KEY = "vesta_owner-of-the-platform"


@pytest.fixture(scope="session", autouse=True)
def _tracing() -> None:
    trace.start_tracing("gateway")


@dataclass
class Seen:
    """One request as a service saw it."""

    method: str
    request: Any
    caller: str
    role: str
    trace_id: str


@dataclass
class Services(
    ProjectServiceServicer,
    DatasetServiceServicer,
    ItemServiceServicer,
    SourceServiceServicer,
    DeploymentServiceServicer,
):
    """What stands behind the gateway."""

    seen: list[Seen] = field(default_factory=list)
    projects: dict[str, Project] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)
    download: list[bytes] = field(default_factory=lambda: [b"pixels"])
    downloading: set[int] = field(default_factory=set)
    overloaded: bool = False
    predicting: threading.Event | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def _see(self, request: Any, method: str) -> None:
        self.seen.append(Seen(method, request, trace.caller(), trace.role(), trace.trace_id()))

    def CreateProject(self, request: Any, context: Any) -> Project:
        self._see(request, "CreateProject")
        project = Project(name=f"projects/{request.project_id}", display_name=request.project.display_name)
        self.projects[project.name] = project
        return project

    def DeleteProject(self, request: Any, context: Any) -> Project:
        self._see(request, "DeleteProject")
        if not request.force:
            raise FailedPrecondition(f"{request.name} holds 2 datasets", reason="PROJECT_NOT_EMPTY")
        self.projects[request.name].state = Project.DELETING
        return self.projects[request.name]

    def GetProject(self, request: Any, context: Any) -> Project:
        self._see(request, "GetProject")
        if request.name not in self.projects:
            raise NotFound(f"there is no {request.name}")
        return self.projects[request.name]

    def ListProjects(self, request: Any, context: Any) -> ListProjectsResponse:
        self._see(request, "ListProjects")
        names = list(request.names) or sorted(self.projects)
        return ListProjectsResponse(projects=[self.projects[name] for name in names if name in self.projects])

    def CreateDataset(self, request: Any, context: Any) -> Dataset:
        self._see(request, "CreateDataset")
        dataset = Dataset()
        dataset.CopyFrom(request.dataset)
        dataset.name = f"{request.parent}/datasets/{request.dataset_id}"
        self.datasets[dataset.name] = dataset
        return dataset

    def GetDataset(self, request: Any, context: Any) -> Dataset:
        self._see(request, "GetDataset")
        if request.name not in self.datasets:
            raise NotFound(f"there is no {request.name}; create it first", metadata={"name": request.name})
        return self.datasets[request.name]

    def ListDatasets(self, request: Any, context: Any) -> ListDatasetsResponse:
        self._see(request, "ListDatasets")
        return ListDatasetsResponse(
            datasets=[d for n, d in sorted(self.datasets.items()) if n.startswith(request.parent)]
        )

    def UpdateDataset(self, request: Any, context: Any) -> Dataset:
        self._see(request, "UpdateDataset")
        return request.dataset

    def DeleteDataset(self, request: Any, context: Any) -> Empty:
        self._see(request, "DeleteDataset")
        raise ResourceExhausted("too many deletions")

    def SearchItems(self, request: Any, context: Any) -> SearchItemsResponse:
        self._see(request, "SearchItems")
        return SearchItemsResponse()

    def DownloadItem(self, request: Any, context: Any) -> Iterator[HttpBody]:
        self._see(request, "DownloadItem")
        if request.name.endswith("/missing"):
            raise NotFound("there is no such item")
        self.downloading.add(id(context))
        try:
            for piece in self.download:
                if piece == b"BREAK":
                    raise RuntimeError("the disk is gone")
                yield HttpBody(content_type="image/jpeg", data=piece)
        finally:
            self.downloading.discard(id(context))

    def UploadItem(self, requests: Iterator[Any], context: Any) -> UploadItemResponse:
        first = next(requests)
        self._see(first, "UploadItem")
        digest, size = hashlib.sha256(first.file.data), len(first.file.data)
        for request in requests:
            digest.update(request.file.data)
            size += len(request.file.data)
        answer = UploadItemResponse(item=f"{first.parent.rpartition('/sources')[0]}/datasets/d/items/i")
        answer.media.sha256, answer.media.size_bytes = digest.hexdigest(), size
        return answer

    def Predict(self, request: Any, context: Any) -> PredictResponse:
        self._see(request, "Predict")
        if self.overloaded:
            raise ResourceExhausted("too much", reason="OVERLOADED", retry_after=timedelta(seconds=2.5))
        if self.predicting is not None:
            context.add_callback(self.ended.set)
            self.predicting.wait(20)
        return PredictResponse(predictions=[ImagePrediction(message=str(len(one.data))) for one in request.inputs])


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
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

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
        server = Server(identity_of("test"), "127.0.0.1:0", [_only(services, base) for base in Services.__mro__[1:6]])
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


def _only(services: Services, base: type) -> Any:
    """One service of several that one object implements."""
    methods = {
        name: getattr(services, name) for name in vars(base) if not name.startswith("_") and name in vars(Services)
    }
    return type(base.__name__, (base,), {name: staticmethod(method) for name, method in methods.items()})()

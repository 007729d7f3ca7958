"""A fake of the services behind the gateway, which records the requests and who sent them."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty
from vesta_common import trace
from vesta_common.errors import AlreadyExists, FailedPrecondition, ResourceExhausted
from vesta_common.messages import copy_of
from vesta_common.resources.etags import with_etag
from vesta_common.resources.methods import existing, missing, revise, taken
from vesta_common.resources.names import parent_of
from vesta_contracts.conductor.v1 import ListProjectsResponse, Project, ProjectServiceServicer
from vesta_contracts.connection.v1 import SourceServiceServicer, UploadItemResponse
from vesta_contracts.datasets.v1 import (
    Dataset,
    DatasetServiceServicer,
    ItemServiceServicer,
    ListDatasetsResponse,
    SearchItemsResponse,
)
from vesta_contracts.serving.v1 import DeploymentServiceServicer, ImagePrediction, PredictResponse
from vesta_local.fakes import FirstResponses


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
    """Fakes of five gRPC services.

    Attributes:
        seen: the requests, in order.
        download: the chunks of every item; BREAK interrupts a download.
        downloading: the downloads that are running.
        overloaded: Predict returns OVERLOADED.
        exhausted: DeleteDataset returns RESOURCE_EXHAUSTED for another reason than overload.
        predicting: Predict waits for it, if given.
        ended: set when a Predict call that waited has ended.
    """

    seen: list[Seen] = field(default_factory=list)
    projects: dict[str, Project] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)
    download: list[bytes] = field(default_factory=lambda: [b"pixels"])
    downloading: set[int] = field(default_factory=set)
    overloaded: bool = False
    exhausted: bool = False
    predicting: threading.Event | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    _first: FirstResponses = field(default_factory=FirstResponses)

    def servicers(self) -> list[Any]:
        """Returns one servicer per gRPC service."""
        return [self._only(base) for base in Services.__mro__[1:6]]

    def _only(self, base: type) -> Any:
        methods = {
            name: getattr(self, name) for name in vars(base) if not name.startswith("_") and name in vars(Services)
        }
        return type(base.__name__, (base,), {name: staticmethod(method) for name, method in methods.items()})()

    def _see(self, request: Any, method: str) -> None:
        self.seen.append(Seen(method, request, trace.caller(), trace.role(), trace.trace_id()))

    def CreateProject(self, request: Any, context: Any) -> Project:
        self._see(request, "CreateProject")
        return self._first.once(request, lambda: self._create_project(request))

    def _create_project(self, request: Any) -> Project:
        name = f"projects/{request.project_id}"
        if name in self.projects:
            raise AlreadyExists(f"{name} is taken", reason="PROJECT_EXISTS", metadata={"name": name})
        project = Project(name=name, display_name=request.project.display_name, state=Project.ACTIVE)
        self.projects[name] = project
        return project

    def DeleteProject(self, request: Any, context: Any) -> Project:
        self._see(request, "DeleteProject")
        project = self._project(request.name)
        if not request.force:
            raise FailedPrecondition(f"{request.name} holds 2 datasets", reason="PROJECT_NOT_EMPTY")
        project.state = Project.DELETING
        return project

    def GetProject(self, request: Any, context: Any) -> Project:
        self._see(request, "GetProject")
        return self._project(request.name)

    def ListProjects(self, request: Any, context: Any) -> ListProjectsResponse:
        self._see(request, "ListProjects")
        names = sorted(set(request.names or self.projects) & set(self.projects))
        found = [self.projects[name] for name in names]
        shown = [project for project in found if request.show_deleted or project.state != Project.DELETED]
        return ListProjectsResponse(projects=shown)

    def _project(self, name: str) -> Project:
        return existing(self.projects.get(name), name, reason="PROJECT_NOT_FOUND")

    def CreateDataset(self, request: Any, context: Any) -> Dataset:
        self._see(request, "CreateDataset")
        dataset = copy_of(request.dataset, name=f"{request.parent}/datasets/{request.dataset_id}")
        if dataset.name in self.datasets:
            raise taken(dataset.name)
        self.datasets[dataset.name] = with_etag(dataset)
        return dataset

    def GetDataset(self, request: Any, context: Any) -> Dataset:
        self._see(request, "GetDataset")
        return existing(self.datasets.get(request.name), request.name, "create it first")

    def ListDatasets(self, request: Any, context: Any) -> ListDatasetsResponse:
        self._see(request, "ListDatasets")
        names = sorted(name for name in self.datasets if parent_of(name) == request.parent)
        return ListDatasetsResponse(datasets=[self.datasets[name] for name in names])

    def UpdateDataset(self, request: Any, context: Any) -> Dataset:
        self._see(request, "UpdateDataset")
        current = existing(self.datasets.get(request.dataset.name), request.dataset.name)
        updated = with_etag(revise(current, request.dataset, request.update_mask, ("display_name", "taxonomy")))
        self.datasets[updated.name] = updated
        return updated

    def DeleteDataset(self, request: Any, context: Any) -> Empty:
        self._see(request, "DeleteDataset")
        if self.exhausted:
            raise ResourceExhausted("too many deletions")
        if not self.datasets.pop(request.name, None):
            raise missing(request.name)
        return Empty()

    def SearchItems(self, request: Any, context: Any) -> SearchItemsResponse:
        self._see(request, "SearchItems")
        if request.parent not in self.datasets:
            raise missing(request.parent)
        return SearchItemsResponse()

    def DownloadItem(self, request: Any, context: Any) -> Iterator[HttpBody]:
        self._see(request, "DownloadItem")
        if request.name.endswith("/missing"):
            raise missing(request.name)
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
        if first.parent.endswith("/missing"):
            raise missing(first.parent)
        digest, size = hashlib.sha256(first.file.data), len(first.file.data)
        for request in requests:
            digest.update(request.file.data)
            size += len(request.file.data)
        answer = UploadItemResponse(item=f"{parent_of(first.parent)}/datasets/d/items/i")
        answer.media.sha256, answer.media.size_bytes = digest.hexdigest(), size
        return answer

    def Predict(self, request: Any, context: Any) -> PredictResponse:
        self._see(request, "Predict")
        if self.overloaded:
            raise ResourceExhausted("too much", reason="OVERLOADED", retry_after=timedelta(seconds=2.5))
        if self.predicting is not None:
            context.add_callback(self.ended.set)
            self.predicting.wait(20)
        embedding = [1.0] if request.embedding else []
        return PredictResponse(
            predictions=[ImagePrediction(message=str(len(sent.data)), embedding=embedding) for sent in request.inputs]
        )

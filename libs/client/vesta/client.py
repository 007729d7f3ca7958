"""The client: one typed stub per service, and methods for workflows of several calls."""

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from google.api import httpbody_pb2
from google.protobuf.empty_pb2 import Empty
from vesta_contracts.annotation.v1 import (
    CampaignServiceStub,
    ReviewServiceStub,
    SubmissionServiceStub,
    TaskServiceStub,
)
from vesta_contracts.conductor.v1 import LoopServiceStub, ProjectServiceStub
from vesta_contracts.connection.v1 import (
    CreateSyncRequest,
    GetSyncRequest,
    SourceServiceStub,
    Sync,
    SyncServiceStub,
    UploadItemRequest,
    UploadItemResponse,
)
from vesta_contracts.datasets.v1 import (
    ArchiveServiceStub,
    DatasetServiceStub,
    DownloadArchiveRequest,
    GetOperationRequest,
    ItemServiceStub,
    SnapshotServiceStub,
    TaxonomyServiceStub,
    UploadArchiveRequest,
)
from vesta_contracts.gateway.v1 import ApiKeyServiceStub, AuditServiceStub, EventServiceStub, MemberServiceStub
from vesta_contracts.pipelining.v1 import ObservationServiceStub, PipelineServiceStub, StreamServiceStub
from vesta_contracts.serving.v1 import (
    DeploymentServiceStub,
    ImagePrediction,
    PredictInput,
    PredictionServiceStub,
    PredictRequest,
)
from vesta_contracts.training.v1 import (
    GetTrainingRunRequest,
    ImportPretrainedDetectorRequest,
    ModelServiceStub,
    PretrainedDetector,
    PretrainedDetectorServiceStub,
    RecipeServiceStub,
    StudyServiceStub,
    TrainingRun,
    TrainingRunServiceStub,
)

from vesta.channel import PATIENCE, open_channel
from vesta.overload import until_admitted
from vesta.waiting import DEADLINE, wait_until

CHUNK_BYTES = 1024 * 1024
HEALTH_TIMEOUT_SECONDS = 10.0
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_SERVING = (
    b"\x08\x01"  # HealthCheckResponse(status=SERVING) in wire format; the SDK does not depend on grpcio-health-checking
)
_PROBLEMS_KEY = "vesta-problems-bin"
PAGE_SIZE = 1000
PREDICT_BATCH_MAX = 64
PREDICT_BATCH_BYTES_MAX = 32 * 1024 * 1024


class Vesta:
    """A connection to the platform as a member, or as its owner.

    Each service is an attribute with the methods of its contract:
    `vesta.datasets.GetDataset(GetDatasetRequest(name=…))`. A failed call raises `vesta.ApiError`. Thread-safe.

    Args:
        address: the gRPC address of the gateway, `127.0.0.1:8081`, or `https://vesta.example:443`.
        api_key: an API key, or the owner key of the platform.
        patience: how long a call waits for a platform that is overloaded, or that has responded before and is
            unavailable.
    """

    def __init__(self, address: str, api_key: str, patience: timedelta = PATIENCE) -> None:
        self._patience = patience
        self.channel = channel = open_channel(address, api_key, patience)
        self.projects = ProjectServiceStub(channel)
        self.loops = LoopServiceStub(channel)
        self.members = MemberServiceStub(channel)
        self.api_keys = ApiKeyServiceStub(channel)
        self.events = EventServiceStub(channel)
        self.audit = AuditServiceStub(channel)
        self.sources = SourceServiceStub(channel)
        self.syncs = SyncServiceStub(channel)
        self.datasets = DatasetServiceStub(channel)
        self.taxonomies = TaxonomyServiceStub(channel)
        self.items = ItemServiceStub(channel)
        self.snapshots = SnapshotServiceStub(channel)
        self.archives = ArchiveServiceStub(channel)
        self.campaigns = CampaignServiceStub(channel)
        self.tasks = TaskServiceStub(channel)
        self.submissions = SubmissionServiceStub(channel)
        self.reviews = ReviewServiceStub(channel)
        self.recipes = RecipeServiceStub(channel)
        self.training_runs = TrainingRunServiceStub(channel)
        self.studies = StudyServiceStub(channel)
        self.models = ModelServiceStub(channel)
        self.pretrained_detectors = PretrainedDetectorServiceStub(channel)
        self.deployments = DeploymentServiceStub(channel)
        self.predictions = PredictionServiceStub(channel)
        self.pipelines = PipelineServiceStub(channel)
        self.streams = StreamServiceStub(channel)
        self.observations = ObservationServiceStub(channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self.channel.close()

    def problems(self) -> list[str]:
        """Returns the problems of the platform with suggested fixes, one sentence each; empty if there are none."""
        check: Any = self.channel.unary_unary(_HEALTH_CHECK, request_serializer=Empty.SerializeToString)
        answer, call = check.with_call(Empty(), timeout=HEALTH_TIMEOUT_SECONDS)
        problems = [
            str(each) for key, value in call.trailing_metadata() if key == _PROBLEMS_KEY for each in json.loads(value)
        ]
        return problems or ([] if answer == _SERVING else ["gateway: it is not ready; check its log"])

    def pages(self, method: Callable[[Any], Any], request: Any) -> Iterator[Any]:
        """Yields all resources of a `List…` method, page by page, in the order of the method."""
        request = type(request).FromString(request.SerializeToString())
        request.page_size = request.page_size or PAGE_SIZE
        while True:
            response = method(request)
            resources = next(field for field in response.DESCRIPTOR.fields if field.is_repeated)
            yield from getattr(response, resources.name)
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    def upload(self, source: str, path: Path, metadata: dict[str, str] | None = None) -> UploadItemResponse:
        """Uploads one image file through a Source of kind upload. Returns the item."""
        return until_admitted(lambda: self._upload(source, path, metadata), self._patience)

    def _upload(self, source: str, path: Path, metadata: dict[str, str] | None) -> UploadItemResponse:
        with path.open("rb") as file:
            chunks = iter(lambda: file.read(CHUNK_BYTES), b"")
            first = UploadItemRequest(
                parent=source,
                file_name=path.name,
                metadata=metadata or {},
                file=httpbody_pb2.HttpBody(data=next(chunks, b"")),
            )
            later = (UploadItemRequest(file=httpbody_pb2.HttpBody(data=chunk)) for chunk in chunks)
            return self.sources.UploadItem(_chain(first, later))

    def upload_archive(self, project: str, path: Path) -> str:
        """Uploads a zip archive. Returns its key for `ImportDataset`."""
        return until_admitted(lambda: self._upload_archive(project, path), self._patience)

    def _upload_archive(self, project: str, path: Path) -> str:
        with path.open("rb") as file:
            chunks = iter(lambda: file.read(CHUNK_BYTES), b"")
            first = UploadArchiveRequest(parent=project, file=httpbody_pb2.HttpBody(data=next(chunks, b"")))
            later = (UploadArchiveRequest(file=httpbody_pb2.HttpBody(data=chunk)) for chunk in chunks)
            return self.archives.UploadArchive(_chain(first, later)).archive_key

    def download_archive(self, project: str, archive_key: str, path: Path) -> None:
        """Downloads an exported archive to `path`. An existing file is replaced when the download is complete."""
        request = DownloadArchiveRequest(parent=project, archive_key=archive_key)
        part = path.with_name(f"{path.name}.part")
        try:
            with part.open("wb") as file:
                for body in self.archives.DownloadArchive(request):
                    file.write(body.data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def import_detector(self, project: str, path: Path, card: str, detector_id: str = "") -> PretrainedDetector:
        """Imports a pretrained detector from an ONNX file; see `ImportPretrainedDetector`.

        Args:
            card: YAML, or Markdown with a YAML header, with the key `license`.
            detector_id: the last segment of its name; generated if empty.
        """
        return until_admitted(lambda: self._import_detector(project, path, card, detector_id), self._patience)

    def _import_detector(self, project: str, path: Path, card: str, detector_id: str) -> PretrainedDetector:
        with path.open("rb") as file:
            chunks = iter(lambda: file.read(CHUNK_BYTES), b"")
            first = ImportPretrainedDetectorRequest(
                parent=project,
                pretrained_detector_id=detector_id,
                card=card,
                file=httpbody_pb2.HttpBody(data=next(chunks, b"")),
            )
            later = (ImportPretrainedDetectorRequest(file=httpbody_pb2.HttpBody(data=chunk)) for chunk in chunks)
            return self.pretrained_detectors.ImportPretrainedDetector(_chain(first, later))

    def predict(self, deployment: str, images: Iterable[bytes]) -> list[ImagePrediction]:
        """Predicts labels of image files, in order, in batches. At most one batch is in memory."""
        answers: list[ImagePrediction] = []
        for batch in _predict_batches(images):
            inputs = [PredictInput(data=image) for image in batch]
            answers += self.deployments.Predict(PredictRequest(name=deployment, inputs=inputs)).predictions
        return answers

    def sync(self, source: str, on_progress: Callable[[Sync], None] = lambda _: None) -> Sync:
        """Starts a Sync of a Source, and waits until it ends."""
        started = self.syncs.CreateSync(CreateSyncRequest(parent=source))
        ended = (Sync.SUCCEEDED, Sync.FAILED, Sync.CANCELLED)
        return wait_until(
            lambda: self.syncs.GetSync(GetSyncRequest(name=started.name)), lambda sync: sync.state in ended, on_progress
        )

    def wait_for_run(self, name: str, on_progress: Callable[[TrainingRun], None] = lambda _: None) -> TrainingRun:
        """Waits until a TrainingRun ends."""
        ended = (TrainingRun.SUCCEEDED, TrainingRun.FAILED, TrainingRun.CANCELLED)
        return wait_until(
            lambda: self.training_runs.GetTrainingRun(GetTrainingRunRequest(name=name)),
            lambda run: run.state in ended,
            on_progress,
        )

    def wait_for_operation(self, name: str, on_progress: Callable[[Any], None] = lambda _: None) -> Any:
        """Waits until an import or export is done. Returns the `google.longrunning.Operation`."""
        return wait_until(
            lambda: self.archives.GetOperation(GetOperationRequest(name=name)),
            lambda op: op.done,
            on_progress,
            DEADLINE,
        )


def _predict_batches(images: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Splits images into batches that fit into a message."""
    batch: list[bytes] = []
    size_bytes = 0
    for image in images:
        if batch and (len(batch) == PREDICT_BATCH_MAX or size_bytes + len(image) > PREDICT_BATCH_BYTES_MAX):
            yield batch
            batch, size_bytes = [], 0
        batch.append(image)
        size_bytes += len(image)
    if batch:
        yield batch


def _chain(first: Any, later: Iterable[Any]) -> Iterator[Any]:
    yield first
    yield from later

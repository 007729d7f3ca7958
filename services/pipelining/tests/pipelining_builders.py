"""Builders for the tests: frames, and fake services."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from PIL import Image
from vesta_common.errors import DeadlineExceeded, InvalidArgument, NotFound, VestaError
from vesta_common.events.cloudevents import Event
from vesta_common.ids import new_id
from vesta_contracts.common.v1 import ConceptScore
from vesta_contracts.connection.v1 import (
    FolderSource,
    GetSourceRequest,
    Source,
    SourceServiceServicer,
    UploadItemRequest,
    UploadItemResponse,
    UploadSource,
)
from vesta_contracts.serving.v1 import (
    Deployment,
    DeploymentServiceServicer,
    GetDeploymentRequest,
    ImagePrediction,
    PredictRequest,
    PredictResponse,
)

PROJECT = "projects/acme"
DEPLOYMENT = f"{PROJECT}/deployments/vans"
SOURCE = f"{PROJECT}/sources/cameras"
FOLDER = f"{PROJECT}/sources/folder"
PIPELINE = f"{PROJECT}/pipelines/yard"
FRAME_TYPE = "vesta.pipelining.frame.v1.captured"
PATIENCE_SECONDS = 40.0


def a_jpeg(red: int = 200, green: int = 0) -> bytes:
    """Returns an image: certain if red, uncertain if dark, of several labels if green."""
    target = io.BytesIO()
    Image.new("RGB", (32, 24), (red, green, 0)).save(target, "JPEG")
    return target.getvalue()


def a_frame(stream: str, *, data: bytes = b"", age: timedelta = timedelta(), **fields: Any) -> Event:
    values: dict[str, Any] = {
        "id": new_id(),
        "type": FRAME_TYPE,
        "source": "cameras/test",
        "subject": stream,
        "time": datetime.now(UTC) - age,
        "payload": data or a_jpeg(),
        "carrier": {},
        "content_type": "image/jpeg",
    }
    return Event(**(values | fields))


def eventually(look: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    """Polls `look` until its result is as wanted, or a deadline has passed; returns the result."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not wanted(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


class FakeServing(DeploymentServiceServicer):
    """A fake DeploymentService with one deployment, whose model predicts a van for red, and is uncertain for dark images.

    Attributes:
        failure: raised instead of a response.
        asked: the number of images of each call.
    """

    def __init__(self) -> None:
        self.failure: VestaError | None = None
        self.asked: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def GetDeployment(self, request: GetDeploymentRequest, context: grpc.ServicerContext) -> Deployment:
        if self.failure:
            raise self.failure
        if request.name != DEPLOYMENT:
            raise NotFound(f"there is no {request.name}", reason="RESOURCE_NOT_FOUND")
        return Deployment(name=request.name)

    def Predict(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        self.asked.append(len(request.inputs))
        self.gate.wait(5)
        if self.failure:
            raise self.failure
        return PredictResponse(predictions=[_answer(sent.data) for sent in request.inputs])


def _answer(data: bytes) -> ImagePrediction:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            pixel = picture.convert("RGB").getpixel((0, 0))
    except OSError:
        return ImagePrediction(reason="IMAGE_UNREADABLE", message="not an image")
    assert isinstance(pixel, tuple)
    if pixel[1] > 100:  # low and high thresholds: the lower score is predicted, the higher one is not
        return ImagePrediction(
            labels=[ConceptScore(concept="van", score=0.2, predicted=True, threshold=0.1)],
            discarded=[ConceptScore(concept="car", score=0.8, threshold=0.9)],
            model_version=f"{PROJECT}/models/vans/versions/1",
        )
    certain = pixel[0] > 100
    van, car = ConceptScore(concept="van", score=0.9), ConceptScore(concept="car", score=0.1)
    return ImagePrediction(
        labels=[van] if certain else [],
        discarded=[car] if certain else [van, car],
        model_version=f"{PROJECT}/models/vans/versions/1",
        uncertain=not certain,
        margin=0.8 if certain else 0.1,
    )


class FakeConnection(SourceServiceServicer):
    """A fake SourceService, which accepts uploads; the same request creates the same item.

    Attributes:
        failure: raised instead of a response.
        lost: how many responses are lost after the item was created.
    """

    def __init__(self) -> None:
        self.failure: VestaError | None = None
        self.lost = 0
        self.taken: list[UploadItemRequest] = []
        self.items: dict[str, str] = {}

    def GetSource(self, request: GetSourceRequest, context: grpc.ServicerContext) -> Source:
        kinds = {SOURCE: Source(name=SOURCE, upload=UploadSource()), FOLDER: Source(name=FOLDER, folder=FolderSource())}
        if request.name not in kinds:
            raise NotFound(f"there is no {request.name}", reason="RESOURCE_NOT_FOUND")
        return kinds[request.name]

    def UploadItem(
        self, request_iterator: Iterator[UploadItemRequest], context: grpc.ServicerContext
    ) -> UploadItemResponse:
        (first,) = list(request_iterator)
        if self.failure:
            raise self.failure
        if not first.request_id:
            raise InvalidArgument("a request_id is needed here", reason="REQUEST_ID_MISSING")
        self.taken.append(first)
        item = self.items.setdefault(first.request_id, f"{PROJECT}/datasets/vans/items/{len(self.items):026d}")
        if self.lost:
            self.lost -= 1
            raise DeadlineExceeded("the answer was lost")
        return UploadItemResponse(item=item)

"""Builders for the tests: frames, and fake services."""

import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from PIL import Image
from vesta_common.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, VestaError
from vesta_common.events.cloudevents import Event
from vesta_common.ids import new_id
from vesta_common.resources.methods import existing, missing
from vesta_contracts.common.v1 import Annotation, ConceptScore, Media, PixelBox, Prediction, SegmentationMap
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
from vesta_local.fakes import FirstResponses

PROJECT = "projects/acme"
DEPLOYMENT = f"{PROJECT}/deployments/vans"
MODEL_VERSION = f"{PROJECT}/models/vans/versions/1"
SOURCE = f"{PROJECT}/sources/cameras"
FOLDER = f"{PROJECT}/sources/folder"
PIPELINE = f"{PROJECT}/pipelines/yard"
FRAME_TYPE = "vesta.pipelining.frame.v1.captured"
PATIENCE_SECONDS = 40.0
OBJECTS_MANY = 2_000
"""Too many for an event."""


def a_jpeg(red: int = 200, green: int = 0, blue: int = 0) -> bytes:
    """Returns an image: certain if red, uncertain if dark, of several labels if green, of objects if blue."""
    target = io.BytesIO()
    Image.new("RGB", (32, 24), (red, green, blue)).save(target, "JPEG")
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
        _check_deployment(request.name)
        return Deployment(name=request.name)

    def Predict(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        self.asked.append(len(request.inputs))
        self.gate.wait(5)
        if self.failure:
            raise self.failure
        _check_deployment(request.name)
        return PredictResponse(predictions=[_answer(sent.data) for sent in request.inputs])


def _check_deployment(name: str) -> None:
    if name != DEPLOYMENT:
        raise missing(name)


def a_detection(count: int) -> Prediction:
    """Vans side by side, the last one below the threshold."""
    boxes = [PixelBox(x_min_px=place, y_min_px=1, x_max_px=place + 0.5, y_max_px=20) for place in range(count)]
    return Prediction(
        scores=[
            ConceptScore(concept="van", score=0.9, predicted=True, threshold=0.5),
            ConceptScore(concept="car", score=0, threshold=0.5),
        ],
        annotations=[Annotation(concept="van", score=0.25 if box is boxes[-1] else 0.9, box=box) for box in boxes],
        model_version=MODEL_VERSION,
    )


def a_map(side_px: int) -> Prediction:
    """A chessboard of vans and cars, which has as many runs as pixels."""
    return Prediction(
        scores=[ConceptScore(concept=concept, score=0.9, predicted=True, threshold=0.5) for concept in ("van", "car")],
        segmentation_map=SegmentationMap(
            height_px=side_px,
            width_px=side_px,
            concepts=["van", "car"],
            runs_px=[1] * side_px**2,
            concept_numbers=[1, 2] * (side_px**2 // 2),
        ),
        model_version=MODEL_VERSION,
    )


def _answer(data: bytes) -> ImagePrediction:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            pixel = picture.convert("RGB").getpixel((0, 0))
    except OSError:
        return ImagePrediction(reason="IMAGE_FORMAT_UNSUPPORTED", message="not an image")
    assert isinstance(pixel, tuple)
    if pixel[2] > 220:
        return ImagePrediction(prediction=a_map(200 if pixel[1] > 100 else 8))
    if pixel[2] > 100:
        return ImagePrediction(prediction=a_detection(OBJECTS_MANY if pixel[1] > 100 else 2))
    if pixel[1] > 100:  # low and high thresholds: the lower score is predicted, the higher one is not
        van = ConceptScore(concept="van", score=0.2, predicted=True, threshold=0.1)
        car = ConceptScore(concept="car", score=0.8, threshold=0.9)
        return ImagePrediction(prediction=Prediction(scores=[car, van], model_version=MODEL_VERSION))
    certain = pixel[0] > 100
    return ImagePrediction(
        prediction=Prediction(
            scores=[
                ConceptScore(concept="van", score=0.9 if certain else 0.45, predicted=certain),
                ConceptScore(concept="car", score=0.1 if certain else 0.35),
            ],
            model_version=MODEL_VERSION,
            uncertain=not certain,
            margin=0.8 if certain else 0.1,
        )
    )


SOURCES = {SOURCE: Source(name=SOURCE, upload=UploadSource()), FOLDER: Source(name=FOLDER, folder=FolderSource())}


class FakeConnection(SourceServiceServicer):
    """A fake SourceService with two sources, which accepts uploads; an image is one item.

    Attributes:
        taken: the accepted requests, repeated ones among them.
        items: the item of each request_id.
        failure: raised instead of a response.
        lost: how many responses are lost after the item was created.
    """

    def __init__(self) -> None:
        self.failure: VestaError | None = None
        self.lost = 0
        self.taken: list[UploadItemRequest] = []
        self.items: dict[str, str] = {}
        self._first = FirstResponses()

    def GetSource(self, request: GetSourceRequest, context: grpc.ServicerContext) -> Source:
        return existing(SOURCES.get(request.name), request.name)

    def UploadItem(
        self, request_iterator: Iterator[UploadItemRequest], context: grpc.ServicerContext
    ) -> UploadItemResponse:
        (first,) = list(request_iterator)
        if self.failure:
            raise self.failure
        if not first.request_id:
            raise InvalidArgument("a request_id is needed here", reason="REQUEST_ID_MISSING")
        answer = self._first.once(first, lambda: self._take(first))
        self.taken.append(first)
        if self.lost:
            self.lost -= 1
            raise DeadlineExceeded("the answer was lost")
        return answer

    def _take(self, upload: UploadItemRequest) -> UploadItemResponse:
        if existing(SOURCES.get(upload.parent), upload.parent).WhichOneof("kind") != "upload":
            raise FailedPrecondition(f"{upload.parent} is no upload source", reason="SOURCE_NOT_UPLOAD")
        if reason := _answer(upload.file.data).reason:
            raise InvalidArgument("not an image", reason=reason)
        digest = hashlib.sha256(upload.file.data).hexdigest()
        item = f"{PROJECT}/datasets/vans/items/{digest[:26]}"
        made = UploadItemResponse(item=item, media=Media(sha256=digest), already_existed=item in self.items.values())
        self.items[upload.request_id] = item
        return made

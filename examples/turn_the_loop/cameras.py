"""Two cameras: publishes photographs as frames on Kafka and prints the observations of the pipeline."""

import io
import time
import uuid
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from kafka import KafkaProducer
from kafka.errors import KafkaError
from PIL import Image
from vesta import Vesta
from vesta_contracts.connection.v1 import CreateSourceRequest, Source, UploadSource
from vesta_contracts.pipelining.v1 import (
    CreatePipelineRequest,
    CreateStreamRequest,
    GetStreamRequest,
    ListObservationsRequest,
    ModelStep,
    Observation,
    Pipeline,
    Step,
    Stream,
)

FRAME_TOPIC = "vesta.pipelining.frame.v1"
PATIENCE_SECONDS = 60
SEND_SECONDS_MAX = 20
FRAME_SIDE_PX_MAX = 1280
FRAME_INTERVAL_SECONDS = 0.05
REQUEST_BYTES_MAX = 9 * 1024 * 1024  # the maximum size of a frame is 8 MB


def watch(owner: Vesta, streams: list[str], kafka: str, frames: list[Path]) -> list[Observation]:
    """Sends the frames through the cameras in turn. Returns their observations, when all exist or the deadline has
    passed.

    The result has fewer observations than frames if some were dropped because they were too old.

    Raises:
        KafkaError: the broker does not respond, or not at its advertised address; the message suggests what to check.
    """
    with closing(open_producer(kafka)) as producer:
        for index, frame in enumerate(frames):
            stream = streams[index % len(streams)]
            send(producer, kafka, stream, as_jpeg(frame), datetime.now(UTC))
            time.sleep(FRAME_INTERVAL_SECONDS)
    return observed(owner, streams, len(frames))


def open_producer(kafka: str, seconds_max: float = SEND_SECONDS_MAX) -> KafkaProducer:
    """Returns a producer of frames with a timeout."""
    return KafkaProducer(
        bootstrap_servers=kafka,
        acks="all",
        max_request_size=REQUEST_BYTES_MAX,
        max_block_ms=int(seconds_max * 1000),
        request_timeout_ms=int(seconds_max * 1000) - 1,
        delivery_timeout_ms=int(seconds_max * 1000),
        bootstrap_timeout_ms=int(seconds_max * 1000),
    )


def send(
    producer: KafkaProducer,
    kafka: str,
    stream: str,
    frame: bytes,
    frame_time: datetime,
    seconds_max: float = SEND_SECONDS_MAX,
) -> None:
    """Sends one frame, and returns when the broker has acknowledged it.

    Raises:
        KafkaError: the broker did not acknowledge it in time.
    """
    try:
        sent = producer.send(FRAME_TOPIC, value=frame, key=stream.encode(), headers=frame_headers(stream, frame_time))
        sent.get(timeout=seconds_max)
    except KafkaError as error:
        raise KafkaError(
            f"a frame could not be sent to Kafka at {kafka} within {seconds_max:g} s ({error}). A broker names itself to its clients by "
            "its advertised address (advertised.listeners); where that cannot be resolved or reached from here, give it a second listener "
            "whose advertised address can, and pass that one: see docs/operating.md"
        ) from error


def open_streams(owner: Vesta, project: str, dataset: str, deployment: str, cameras: tuple[str, ...]) -> list[str]:
    """Creates the Streams of cameras for a deployment. Uncertain frames are added to the dataset."""
    source = owner.sources.CreateSource(
        CreateSourceRequest(parent=project, source_id="cameras", source=Source(dataset=dataset, upload=UploadSource()))
    )
    return streams_of(owner, project, deployment, cameras, source.name)


def streams_of(
    owner: Vesta, project: str, deployment: str, cameras: tuple[str, ...], uncertain_source: str = ""
) -> list[str]:
    """Creates the Streams of cameras for a deployment. Uncertain frames are uploaded through a Source, if there is
    one.
    """
    pipeline = owner.pipelines.CreatePipeline(
        CreatePipelineRequest(
            parent=project,
            pipeline_id="cameras",
            pipeline=Pipeline(steps=[Step(model=ModelStep(deployment=deployment))], uncertain_source=uncertain_source),
        )
    )
    return [
        owner.streams.CreateStream(CreateStreamRequest(parent=pipeline.name, stream_id=camera, stream=Stream())).name
        for camera in cameras
    ]


def as_jpeg(path: Path) -> bytes:
    """Converts an image file to a JPEG of the size of a camera's frame."""
    target = io.BytesIO()
    with Image.open(path) as image:
        image.draft("RGB", (FRAME_SIDE_PX_MAX, FRAME_SIDE_PX_MAX))
        frame = image.convert("RGB")
        frame.thumbnail((FRAME_SIDE_PX_MAX, FRAME_SIDE_PX_MAX))
        frame.save(target, "JPEG", quality=90)
    return target.getvalue()


def frame_headers(stream: str, frame_time: datetime) -> list[tuple[str, bytes]]:
    """Returns the headers of a frame: CloudEvents 1.0, Kafka binary mode."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(uuid.uuid4()),
        "ce_type": f"{FRAME_TOPIC}.captured",
        "ce_source": "examples/turn_the_loop",
        "ce_subject": stream,
        "ce_time": frame_time.isoformat(),
        "content-type": "image/jpeg",
    }
    return [(name, value.encode()) for name, value in headers.items()]


def observed(owner: Vesta, streams: list[str], count: int) -> list[Observation]:
    """Returns the observations when `count` frames of the Streams have been processed or dropped, or the deadline has
    passed.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and sum(_handled(owner, stream) for stream in streams) < count:
        time.sleep(0.2)
    return [
        observation
        for stream in streams
        for observation in owner.pages(owner.observations.ListObservations, ListObservationsRequest(parent=stream))
    ]


def _handled(owner: Vesta, name: str) -> int:
    """Returns the number of frames of a Stream that were observed, dropped or rejected."""
    stream = owner.streams.GetStream(GetStreamRequest(name=name))
    return stream.observed_count + stream.dropped_count + stream.rejected_count

"""The pipelining service in tests: its API, its broker and fake services."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from kafka import KafkaProducer
from pipelining_builders import DEPLOYMENT, PIPELINE, PROJECT, SOURCE, FakeConnection, FakeServing, a_frame, eventually
from vesta_common.events import dead_letters
from vesta_common.events.broker import Broker, open_consumer
from vesta_common.events.cloudevents import Event, decode, encode_headers
from vesta_common.rpc.client import open_channel
from vesta_common.rpc.server import Server
from vesta_common.runtime.service import App, stop_app
from vesta_contracts.pipelining.v1 import (
    CreatePipelineRequest,
    CreateStreamRequest,
    GetStreamRequest,
    ListObservationsRequest,
    ModelStep,
    Observation,
    ObservationServiceStub,
    Pipeline,
    PipelineServiceStub,
    Step,
    Stream,
    StreamServiceStub,
)
from vesta_local.testing import identity_of
from vesta_pipelining.app import build
from vesta_pipelining.settings import Settings

FRAMES = "vesta.pipelining.frame.v1"
OBSERVATIONS = "vesta.pipelining.observation.v1"
DEAD = "vesta.pipelining.dead_letter.v1"


@dataclass
class Pipelining:
    """The service: its API, its broker and fake services."""

    settings: Settings
    serving: FakeServing
    connection: FakeConnection
    producer: KafkaProducer
    app: App = field(init=False)
    server: Server = field(init=False)

    def start(self) -> None:
        self.app = build(self.settings)
        for component in self.app.components:
            component.start()
        self.server = Server(identity_of("pipelining"), "127.0.0.1:0", self.app.servicers, self.app.registry)
        self.server.start()
        self.channel = open_channel(self.server.address, identity_of("gateway"))
        self.pipelines = PipelineServiceStub(self.channel)
        self.streams = StreamServiceStub(self.channel)
        self.observations = ObservationServiceStub(self.channel)

    def stop(self) -> None:
        self.channel.close()
        stop_app(self.app, self.server)

    def a_pipeline(self, pipeline_id: str = "yard", **fields: Any) -> Pipeline:
        wanted = Pipeline(steps=[Step(model=ModelStep(deployment=DEPLOYMENT))], uncertain_source=SOURCE, **fields)
        age_max = timedelta(minutes=5)
        if not wanted.HasField("age_max"):
            wanted.age_max.FromTimedelta(age_max)
        return self.pipelines.CreatePipeline(
            CreatePipelineRequest(parent=PROJECT, pipeline_id=pipeline_id, pipeline=wanted)
        )

    def a_stream(self, camera: str, pipeline: str = PIPELINE) -> str:
        made = self.streams.CreateStream(
            CreateStreamRequest(parent=pipeline, stream_id=camera, stream=Stream(display_name=camera))
        )
        return made.name

    def publish(self, *frames: Event) -> None:
        for frame in frames:
            sent = self.producer.send(
                self.settings.kafka_topic_prefix + FRAMES,
                value=frame.value,
                key=frame.subject.encode(),
                headers=encode_headers(frame),
            )
        sent.get(timeout=20)

    def stream(self, name: str) -> Stream:
        return self.streams.GetStream(GetStreamRequest(name=name))

    def when(self, name: str, wanted: Callable[[Stream], bool]) -> Stream:
        """Waits until the stream is as wanted; returns it."""
        found: Stream = eventually(lambda: self.stream(name), wanted)
        return found

    def when_frames_come(self, name: str, wanted: Callable[[Stream], bool]) -> Stream:
        """Waits until the stream is as wanted while its camera continues to send; returns it."""

        def look() -> Stream:
            self.publish(a_frame(name))
            return self.stream(name)

        found: Stream = eventually(look, wanted)
        return found

    def observed(self, stream: str, filter_text: str = "") -> list[Observation]:
        """Returns the observations, newest first."""
        request = ListObservationsRequest(parent=stream, page_size=1000, filter=filter_text)
        return list(self.observations.ListObservations(request).observations)

    def told(self, count: int) -> list[Event]:
        """Returns the first `count` events on the topic of observations, in order per stream."""
        consumer = open_consumer(
            Broker.of(self.settings),
            self.settings.kafka_topic_prefix + OBSERVATIONS,
            auto_offset_reset="earliest",
        )
        found: list[Event] = []

        def look() -> int:
            for records in consumer.poll(timeout_ms=100).values():
                found.extend(decode(record.headers, record.value, record.key) for record in records)
            return len(found)

        eventually(look, lambda length: length >= count)
        consumer.close()
        return found

    def letters(self) -> list[dead_letters.DeadLetter]:
        return list(dead_letters.read(Broker.of(self.settings), self.settings.kafka_topic_prefix + DEAD))

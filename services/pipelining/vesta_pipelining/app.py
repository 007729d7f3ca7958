"""The composition root: what the pipelining service is made of."""

from datetime import timedelta

from vesta_common.client import open_channel
from vesta_common.clock import SystemClock
from vesta_common.consumer import Consumer, ConsumerMetrics, KafkaOptions
from vesta_common.outbox import Relay
from vesta_common.postgres import Postgres
from vesta_common.service import App, Loop, new_registry
from vesta_contracts.connection.v1 import SourceServiceStub
from vesta_contracts.serving.v1 import DeploymentServiceStub

from vesta_pipelining.api.observation_service import ObservationService
from vesta_pipelining.api.pipeline_service import PipelineService
from vesta_pipelining.api.stream_service import StreamService
from vesta_pipelining.frames import PREDICT_MAX, Frames
from vesta_pipelining.sending import Sender
from vesta_pipelining.settings import Settings
from vesta_pipelining.store import SERVICE, Store

SEND_IDLE = timedelta(seconds=1)
PRUNE_IDLE = timedelta(hours=1)


def build(settings: Settings) -> App:
    """Waits for the database, brings its schema up to date, and puts the parts together."""
    postgres = Postgres(
        settings.postgres_url, settings.postgres_schema or SERVICE, settings.postgres_connections_max
    ).open()
    postgres.migrate("vesta_pipelining")
    clock, registry = SystemClock(), new_registry()
    store = Store(postgres, clock)
    serving_channel = open_channel(settings.serving_address, SERVICE)
    connection_channel = open_channel(settings.connection_address, SERVICE)
    serving, sources = DeploymentServiceStub(serving_channel), SourceServiceStub(connection_channel)
    sender = Sender(store, sources)
    keep = timedelta(days=settings.observation_days)

    def prune() -> bool:
        store.prune_observations(clock.now() - keep)
        return False

    return App(
        servicers=[PipelineService(store, serving, sources), StreamService(store), ObservationService(store)],
        components=[
            Relay(postgres, settings.kafka_bootstrap, settings.kafka_topic_prefix),
            Consumer(
                SERVICE,
                "frames",
                {},
                postgres,
                KafkaOptions(settings.kafka_bootstrap, settings.kafka_topic_prefix),
                ConsumerMetrics(SERVICE, registry),
                records_max=PREDICT_MAX,
                batch_handlers=Frames(store, serving).batch_handlers(),
            ),
            Loop("sender", sender.step, SEND_IDLE),
            Loop("pruner", prune, PRUNE_IDLE),
        ],
        closing=[serving_channel.close, connection_channel.close, postgres.close],
        registry=registry,
    )

"""The composition root of the pipelining service."""

from datetime import timedelta

from vesta_common.clock import SystemClock
from vesta_common.events.broker import Broker
from vesta_common.events.consumer import Consumer, ConsumerMetrics, KafkaOptions
from vesta_common.events.outbox import Relay
from vesta_common.identity import Identity
from vesta_common.rpc.client import open_channel
from vesta_common.runtime.service import App, BackgroundTask, new_registry
from vesta_common.storage.postgres import Postgres
from vesta_contracts.connection.v1 import SourceServiceStub
from vesta_contracts.serving.v1 import DeploymentServiceStub

from vesta_pipelining.api.observation_service import ObservationService
from vesta_pipelining.api.pipeline_service import PipelineService
from vesta_pipelining.api.stream_service import StreamService
from vesta_pipelining.event_handlers import FRAME, FrameHandler
from vesta_pipelining.forwarder import Forwarder
from vesta_pipelining.settings import Settings
from vesta_pipelining.store import SERVICE, Store
from vesta_pipelining.stream_cache import StreamCache

SEND_INTERVAL = timedelta(milliseconds=500)
SEND_INTERVAL_OF_OTHERS = timedelta(seconds=2)  # one sender that polls often is enough for a few frames
PRUNE_INTERVAL = timedelta(minutes=10)
PRUNE_ROWS_MAX = 5000


def build(settings: Settings) -> App:
    """Waits for the database, migrates or checks its schema, and assembles the service."""
    postgres = Postgres.of(settings, SERVICE, custom_plans=False).open()  # its statements find rows by name
    postgres.migrate_or_check("vesta_pipelining", settings)
    clock, metrics = SystemClock(), new_registry()
    store = Store(postgres, clock)
    identity = Identity.of(settings, SERVICE)
    serving = open_channel(settings.serving_address, identity)
    connection = open_channel(settings.connection_address, identity)
    deployments, sources = DeploymentServiceStub(serving), SourceServiceStub(connection)
    frames = FrameHandler(store, StreamCache(store, clock), deployments, clock, metrics, settings.frames_together_max)
    forwarder = Forwarder(store, sources, clock, metrics)
    keep = timedelta(days=settings.observation_days)

    def prune() -> bool:
        return store.prune_observations(clock.now() - keep, PRUNE_ROWS_MAX) == PRUNE_ROWS_MAX

    kafka = KafkaOptions.of(settings)
    return App(
        engines=settings,
        servicers=[PipelineService(store, deployments, sources), StreamService(store), ObservationService(store)],
        components=[
            Relay(postgres, Broker.of(settings), settings.kafka_topic_prefix),
            *(
                BackgroundTask(f"sender-{number}", forwarder.step, SEND_INTERVAL_OF_OTHERS if number else SEND_INTERVAL)
                for number in range(settings.uncertain_senders)
            ),
            BackgroundTask("pruner", prune, PRUNE_INTERVAL),
            Consumer(
                SERVICE,
                "frames",
                {},
                postgres,
                kafka,
                ConsumerMetrics(SERVICE, metrics),
                records_max=settings.frames_together_max,
                preparations={FRAME: frames.prepare_frames},
                check=frames.check,
            ),
        ],
        closing=[serving.close, connection.close, postgres.close],
        registry=metrics,
    )

"""The composition root of the conductor."""

from vesta_common.clock import SystemClock
from vesta_common.events.broker import Broker
from vesta_common.events.consumer import Consumer, ConsumerMetrics, KafkaOptions
from vesta_common.events.outbox import Relay
from vesta_common.identity import Identity
from vesta_common.rpc.client import open_channel
from vesta_common.runtime.service import App, BackgroundTask, new_registry
from vesta_common.storage.postgres import Postgres

from vesta_conductor.api.loop_service import LoopService
from vesta_conductor.api.project_service import ProjectService
from vesta_conductor.execution.driver import Driver
from vesta_conductor.execution.event_handlers import EventHandlers
from vesta_conductor.execution.queue import POLL_INTERVAL, POLL_INTERVAL_OF_OTHERS, Worker
from vesta_conductor.metrics import ConductorMetrics
from vesta_conductor.peers import Peers
from vesta_conductor.projects import deletion
from vesta_conductor.projects.child_resources import PEERS, child_resources_of
from vesta_conductor.projects.deletion import Deletions
from vesta_conductor.settings import Settings

SERVICE = "conductor"


def build(settings: Settings) -> App:
    """Waits for the database, migrates or checks its schema, and assembles the service."""
    postgres = Postgres.of(settings, SERVICE).open()
    postgres.migrate_or_check("vesta_conductor", settings)
    clock, registry = SystemClock(), new_registry()
    identity = Identity.of(settings, SERVICE)
    channels = {peer: open_channel(getattr(settings, f"{peer}_address"), identity) for peer in PEERS}
    peers = Peers.of_channels(**{peer: channels[peer] for peer in ("datasets", "annotation", "training", "serving")})
    deletions = Deletions(postgres, child_resources_of(channels), clock)
    metrics = ConductorMetrics(registry)
    driver = Driver(postgres, peers, clock, metrics)
    workers = [Worker(postgres, driver, clock, metrics) for _ in range(settings.workers)]
    kafka = KafkaOptions.of(settings)
    return App(
        engines=settings,
        servicers=[ProjectService(postgres, deletions, clock), LoopService(postgres, peers, clock)],
        components=[
            Relay(postgres, Broker.of(settings), settings.kafka_topic_prefix),
            *(
                BackgroundTask(f"worker-{number}", worker.step, POLL_INTERVAL_OF_OTHERS if number else POLL_INTERVAL)
                for number, worker in enumerate(workers)
            ),
            BackgroundTask("deletions", deletions.step, deletion.POLL_INTERVAL),
            Consumer(
                SERVICE,
                "loops",
                {},
                postgres,
                kafka,
                ConsumerMetrics(SERVICE, registry),
                batch_handlers=EventHandlers(clock).handlers(),
            ),
        ],
        closing=[
            *(channel.close for channel in channels.values()),
            postgres.close,
        ],
        registry=registry,
    )

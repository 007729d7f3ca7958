"""The composition root of the annotation service."""

from prometheus_client import Gauge
from vesta_common.clock import SystemClock
from vesta_common.events.broker import Broker
from vesta_common.events.outbox import Relay
from vesta_common.identity import Identity
from vesta_common.media.large_annotations import LargeAnnotations
from vesta_common.rpc.client import open_channel
from vesta_common.runtime.service import App, BackgroundTask, new_registry
from vesta_common.storage.backlog import BACKLOG_INTERVAL, Backlog
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Postgres
from vesta_contracts.datasets.v1 import DatasetServiceStub, ItemServiceStub, TaxonomyServiceStub

from vesta_annotation.api import CampaignService, ReviewService, SubmissionService, TaskService
from vesta_annotation.api.annotation_rules import RulesSource
from vesta_annotation.settings import Settings
from vesta_annotation.store import SERVICE, Store


def build(settings: Settings) -> App:
    """Waits for the database, migrates or checks its schema, and assembles the service."""
    postgres = Postgres.of(settings, SERVICE).open()
    postgres.migrate_or_check("vesta_annotation", settings)
    objects = ObjectStore.of(settings)
    store = Store(postgres, SystemClock(), LargeAnnotations(objects, is_updated=settings.post_migrations))
    identity = Identity.of(settings, SERVICE)
    channel = open_channel(settings.datasets_address, identity)
    items = ItemServiceStub(channel)
    rules = RulesSource(DatasetServiceStub(channel), TaxonomyServiceStub(channel), items)
    metrics = new_registry()
    backlog = Backlog(
        postgres,
        store.count_undecided_tasks,
        ("OPEN", "IN_REVIEW"),
        Gauge("vesta_annotation_tasks", "Undecided tasks", ["state"], registry=metrics),
    )
    return App(
        engines=settings,
        has_objects=True,
        servicers=[
            CampaignService(store, rules),
            TaskService(store, items),
            SubmissionService(store, rules),
            ReviewService(store, rules),
        ],
        components=[
            Relay(postgres, Broker.of(settings), settings.kafka_topic_prefix),
            BackgroundTask("backlog", backlog.step, BACKLOG_INTERVAL),
        ],
        registry=metrics,
        closing=[channel.close, objects.close, postgres.close],
    )

"""The composition root of the datasets service."""

import threading
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
from vesta_common.clock import SystemClock
from vesta_common.events.broker import Broker
from vesta_common.events.consumer import Consumer, ConsumerMetrics, KafkaOptions
from vesta_common.events.outbox import Relay
from vesta_common.identity import Identity
from vesta_common.media.large_annotations import LargeAnnotations
from vesta_common.rpc.client import open_channel
from vesta_common.runtime.service import App, BackgroundTask, new_registry
from vesta_common.sandbox import log_protections
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Postgres
from vesta_contracts.connection.v1 import MediaServiceStub

from vesta_datasets.api.archive_service import ArchiveService
from vesta_datasets.api.dataset_service import DatasetService
from vesta_datasets.api.item_service import ItemService
from vesta_datasets.api.snapshot_service import SnapshotService
from vesta_datasets.api.taxonomy_service import TaxonomyService
from vesta_datasets.ingest.count_folding import CountFolder
from vesta_datasets.ingest.event_handlers import EventHandlers
from vesta_datasets.ingest.scoring_progress import ProgressPublisher
from vesta_datasets.ingest.search_indexing import SearchIndexer
from vesta_datasets.operations.purge import Purge
from vesta_datasets.operations.retention import Retention
from vesta_datasets.operations.transfers import Export, Import
from vesta_datasets.operations.worker import Operations
from vesta_datasets.settings import Settings
from vesta_datasets.snapshot_writer import SnapshotWriter
from vesta_datasets.store import SERVICE, Store
from vesta_datasets.store.operations import EXPORT, IMPORT

IDLE = timedelta(seconds=2)
RETENTION_IDLE = timedelta(hours=1)
PROGRESS_IDLE = timedelta(milliseconds=250)
FOLDING_IDLE = timedelta(seconds=1)
INDEXING_IDLE = timedelta(seconds=1)


def build(settings: Settings) -> App:
    """Waits for the database, migrates or checks its schema, and assembles the service."""
    pa.set_memory_pool(pa.system_memory_pool())  # the default pool keeps about 80 MiB of freed memory
    threading.Thread(target=log_protections, name="sandbox-protections", daemon=True).start()
    postgres = Postgres.of(settings, SERVICE).open()
    postgres.migrate_or_check("vesta_datasets", settings)
    registry = new_registry()
    objects = ObjectStore.of(settings)
    store = Store(postgres, SystemClock(), LargeAnnotations(objects, is_updated=settings.post_migrations))
    identity = Identity.of(settings, SERVICE)
    connection = open_channel(settings.connection_address, identity)
    work_folder = Path(settings.work_folder) if settings.work_folder else None
    importing = Import(store, objects, MediaServiceStub(connection), work_folder)
    writer = SnapshotWriter(store, objects, work_folder)
    exporting = Export(store, objects, writer, work_folder)
    operations = Operations(store, {IMPORT: importing, EXPORT: exporting})
    worker = BackgroundTask("operations", operations.step, IDLE, on_stop=operations.stop)
    operations.wake = worker.wake
    event_handlers = EventHandlers(store)
    kafka = KafkaOptions.of(settings)
    metrics = ConsumerMetrics(SERVICE, registry)
    return App(
        engines=settings,
        has_objects=True,
        servicers=[
            TaxonomyService(store),
            DatasetService(store, operations, objects),
            ItemService(store, objects, work_folder),
            SnapshotService(store, objects, writer),
            ArchiveService(store, operations, objects),
        ],
        components=[
            Relay(postgres, Broker.of(settings), settings.kafka_topic_prefix),
            Consumer(SERVICE, "labels", event_handlers.label_handlers(), postgres, kafka, metrics),
            Consumer(
                SERVICE,
                "predictions",
                {},
                postgres,
                kafka,
                metrics,
                batch_handlers=event_handlers.prediction_handlers(),
            ),
            worker,
            BackgroundTask("purge", Purge(store).step, IDLE),
            BackgroundTask("retention", Retention(store, objects).step, RETENTION_IDLE),
            BackgroundTask("count-folding", CountFolder(store).step, FOLDING_IDLE),
            BackgroundTask("search-indexing", SearchIndexer(store).step, INDEXING_IDLE),
            BackgroundTask("scoring-progress", ProgressPublisher(store).step, PROGRESS_IDLE),
        ],
        closing=[connection.close, postgres.close],
        registry=registry,
    )

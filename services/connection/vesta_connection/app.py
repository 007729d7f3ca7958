"""The composition root of the connection service."""

import sys
from contextlib import closing
from datetime import timedelta

from prometheus_client import Gauge
from vesta_common.clock import SystemClock
from vesta_common.events.broker import Broker
from vesta_common.events.outbox import Relay
from vesta_common.identity import Identity
from vesta_common.rpc.client import open_channel
from vesta_common.runtime.service import App, BackgroundTask, new_registry
from vesta_common.sandbox import Sandbox
from vesta_common.storage.backlog import BACKLOG_INTERVAL, Backlog
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Postgres
from vesta_contracts.datasets.v1 import DatasetServiceStub, ItemServiceStub

from vesta_connection.api import OUTLINED, MediaService, SourceService, SyncService
from vesta_connection.ingest import Ingest
from vesta_connection.key_rotation import rotate_keys
from vesta_connection.metrics import export_storage_space
from vesta_connection.settings import Settings
from vesta_connection.sources.allow_list import AllowList
from vesta_connection.sources.listing import check_protocols
from vesta_connection.store import SERVICE, Store
from vesta_connection.syncs.dataset_items import DatasetItems
from vesta_connection.syncs.worker import SyncWorker
from vesta_connection.vault import Vault

POLL_INTERVAL = timedelta(seconds=2)


def build(settings: Settings) -> App:
    """Waits for the database, migrates or checks its schema, and assembles the service."""
    check_protocols(settings.bucket_protocol_names)
    postgres = Postgres.of(settings, SERVICE).open()
    postgres.migrate_or_check("vesta_connection", settings)
    clock = SystemClock()
    store = Store(postgres, clock, Vault(settings.secret_key_list))
    if settings.post_migrations:  # only then: replicas of the previous version read unencrypted secrets
        rotate_keys(store)
    identity = Identity.of(settings, SERVICE)
    datasets = open_channel(settings.datasets_address, identity)
    sandbox = Sandbox(settings.sandbox_processes)
    ingest = Ingest(sandbox, ObjectStore.of(settings), clock)
    items = DatasetItems(ItemServiceStub(datasets))
    allow_list = AllowList(settings.folder_root_paths, settings.bucket_protocol_names, settings.inner_host_names)
    workers = [SyncWorker(store, ingest, items, allow_list, clock) for _ in range(settings.sync_workers)]
    loops = [
        BackgroundTask(f"sync-{number}", worker.step, POLL_INTERVAL, worker.stop)
        for number, worker in enumerate(workers)
    ]
    registry = new_registry()
    export_storage_space(settings.storage_folder, registry)
    backlog = Backlog(
        postgres,
        store.syncs.count_unfinished,
        ("QUEUED", "RUNNING"),
        Gauge("vesta_connection_syncs", "Active Syncs", ["state"], registry=registry),
        Gauge(
            "vesta_connection_syncs_age_seconds",
            "Age of the oldest one",
            ["state"],
            registry=registry,
        ),
    )
    return App(
        engines=settings,
        has_objects=True,
        servicers=[
            SourceService(store, ingest, items, DatasetServiceStub(datasets), allow_list),
            SyncService(store, loops),
            MediaService(ingest),
        ],
        components=[
            Relay(postgres, Broker.of(settings), settings.kafka_topic_prefix),
            BackgroundTask("backlog", backlog.step, BACKLOG_INTERVAL),
            *loops,
        ],
        closing=[sandbox.close, ingest.close, datasets.close, postgres.close],
        registry=registry,
        outlined=OUTLINED,
    )


def encrypt_secrets(settings: Settings) -> int:
    """Runs the `encrypt-secrets` command: encrypts all secrets with the first key, as every start does; returns 1 if any failed."""
    with closing(Postgres.of(settings, SERVICE).open()) as postgres:
        outcome = rotate_keys(Store(postgres, SystemClock(), Vault(settings.secret_key_list)))
    sys.stdout.write(f"{outcome['encrypted']} secrets encrypted with the first key, {outcome['failed']} failed\n")
    return 1 if outcome["failed"] else 0

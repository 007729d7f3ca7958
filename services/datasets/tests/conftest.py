"""Fixtures: the datasets service with a real database and object store. Only imports call another service, which is faked."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from datasets_builders import Datasets
from vesta_common.clock import ManualClock
from vesta_common.media.large_annotations import LargeAnnotations
from vesta_common.rpc.client import open_channel
from vesta_common.rpc.server import Server
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Postgres
from vesta_datasets.api.archive_service import ArchiveService
from vesta_datasets.api.dataset_service import DatasetService
from vesta_datasets.api.item_service import ItemService
from vesta_datasets.api.snapshot_service import SnapshotService
from vesta_datasets.api.taxonomy_service import TaxonomyService
from vesta_datasets.operations.worker import Operations
from vesta_datasets.settings import Settings
from vesta_datasets.snapshot_writer import SnapshotWriter
from vesta_datasets.store import Store
from vesta_local.testing import identity_of


@pytest.fixture
def datasets(service_settings: Callable[[str], dict[str, Any]]) -> Iterator[Datasets]:
    """The service, with a clock that the test advances."""
    settings = Settings(**service_settings("datasets"), connection_address="127.0.0.1:1")
    postgres = Postgres(settings.postgres_url, settings.postgres_schema).open()
    postgres.migrate("vesta_datasets")
    objects = ObjectStore.of(settings)
    store = Store(postgres, ManualClock(), LargeAnnotations(objects))
    operations = Operations(store, {})
    servicers = [
        TaxonomyService(store),
        DatasetService(store, operations, objects),
        ItemService(store, objects),
        SnapshotService(store, objects, SnapshotWriter(store, objects)),
        ArchiveService(store, operations, objects),
    ]
    server = Server(identity_of("datasets"), "127.0.0.1:0", servicers)
    server.start()
    with (
        open_channel(server.address, identity_of("connection")) as channel,
        open_channel(server.address, identity_of("gateway")) as outside,
    ):
        yield Datasets(store, objects, channel, outside)
    server.stop()
    objects.close()
    postgres.close()

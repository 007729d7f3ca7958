"""Fixtures: the connection service on a real database and object store, with a fake datasets service and a manual clock."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from connection_builders import VAULT, Connection, FakeDatasets, OneDataset
from vesta_common.clock import ManualClock
from vesta_common.rpc.client import open_channel
from vesta_common.rpc.server import Server
from vesta_common.sandbox import Sandbox
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Postgres
from vesta_connection.api import OUTLINED, MediaService, SourceService, SyncService
from vesta_connection.ingest import Ingest
from vesta_connection.settings import Settings
from vesta_connection.sources.allow_list import AllowList
from vesta_connection.store import Store
from vesta_connection.syncs.dataset_items import DatasetItems
from vesta_contracts.connection.v1 import MediaServiceStub, SourceServiceStub, SyncServiceStub
from vesta_contracts.datasets.v1 import DatasetServiceStub, ItemServiceStub
from vesta_local.testing import identity_of


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(2)
    yield sandbox
    sandbox.close()


@pytest.fixture
def datasets() -> FakeDatasets:
    return FakeDatasets()


@pytest.fixture
def datasets_address(datasets: FakeDatasets) -> Iterator[str]:
    server = Server(identity_of("datasets"), "127.0.0.1:0", [datasets, OneDataset(datasets)])
    server.start()
    yield server.address
    server.stop()


@pytest.fixture
def settings(service_settings: Callable[[str], dict[str, Any]], datasets_address: str, tmp_path: Path) -> Settings:
    endpoint = service_settings("connection")["s3_endpoint_url"].removeprefix("http://")
    (tmp_path / "inbox").mkdir()
    return Settings(
        **service_settings("connection"),
        datasets_address=datasets_address,
        folder_roots=str(tmp_path / "inbox"),
        inner_hosts=endpoint,
    )


@pytest.fixture
def connection(settings: Settings, datasets: FakeDatasets, sandbox: Sandbox) -> Iterator[Connection]:
    postgres = Postgres(settings.postgres_url, settings.postgres_schema).open()
    postgres.migrate("vesta_connection")
    clock = ManualClock()
    store = Store(postgres, clock, VAULT)
    peers = open_channel(settings.datasets_address, identity_of("connection"))
    ingest = Ingest(sandbox, ObjectStore.of(settings), clock)
    items = DatasetItems(ItemServiceStub(peers))
    allow_list = AllowList(settings.folder_root_paths, ("s3",), (settings.inner_hosts,))
    server = Server(
        identity_of("connection"),
        "127.0.0.1:0",
        [
            SourceService(store, ingest, items, DatasetServiceStub(peers), allow_list),
            SyncService(store, []),
            MediaService(ingest),
        ],
        outlined=OUTLINED,
    )
    server.start()
    door = open_channel(server.address, identity_of("gateway"))
    yield Connection(
        sources=SourceServiceStub(door),
        syncs=SyncServiceStub(door),
        media=MediaServiceStub(door),
        datasets=datasets,
        postgres=postgres,
        store=store,
        ingest=ingest,
        items=items,
        allow_list=allow_list,
        sandbox=sandbox,
        clock=clock,
        inbox=settings.folder_root_paths[0],
    )
    door.close()
    server.stop()
    ingest.close()
    peers.close()
    postgres.close()

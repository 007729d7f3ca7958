"""Fixtures: the annotation service on a real database, with a fake datasets service and a manual clock."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from annotation_builders import FakeDatasets, FakeItems, FakeTaxonomies, Service
from vesta_annotation.api import CampaignService, ReviewService, SubmissionService, TaskService
from vesta_annotation.api.annotation_rules import RulesSource
from vesta_annotation.settings import Settings
from vesta_annotation.store import Store
from vesta_common.clock import ManualClock
from vesta_common.media.large_annotations import LargeAnnotations
from vesta_common.rpc.client import open_channel
from vesta_common.rpc.server import Server
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Postgres
from vesta_contracts.datasets.v1 import DatasetServiceStub, ItemServiceStub, TaxonomyServiceStub
from vesta_local.testing import identity_of


@pytest.fixture
def datasets() -> FakeDatasets:
    return FakeDatasets()


@pytest.fixture
def taxonomies() -> FakeTaxonomies:
    return FakeTaxonomies()


@pytest.fixture
def items() -> FakeItems:
    return FakeItems()


@pytest.fixture
def datasets_address(datasets: FakeDatasets, taxonomies: FakeTaxonomies, items: FakeItems) -> Iterator[str]:
    server = Server(identity_of("datasets"), "127.0.0.1:0", [datasets, taxonomies, items])
    server.start()
    yield server.address
    server.stop()


@pytest.fixture
def settings(service_settings: Callable[[str], dict[str, Any]], datasets_address: str) -> Settings:
    return Settings(**service_settings("annotation"), datasets_address=datasets_address)


@pytest.fixture
def postgres(settings: Settings) -> Iterator[Postgres]:
    postgres = Postgres(settings.postgres_url, settings.postgres_schema).open()
    postgres.migrate("vesta_annotation")
    yield postgres
    postgres.close()


@pytest.fixture
def objects(settings: Settings) -> Iterator[ObjectStore]:
    objects = ObjectStore.of(settings)
    yield objects
    objects.close()


@pytest.fixture
def annotation(settings: Settings, postgres: Postgres, objects: ObjectStore) -> Iterator[Service]:
    clock = ManualClock()
    store = Store(postgres, clock, LargeAnnotations(objects))
    peers = open_channel(settings.datasets_address, identity_of("annotation"))
    stub = ItemServiceStub(peers)
    rules = RulesSource(DatasetServiceStub(peers), TaxonomyServiceStub(peers), stub)
    servicers = [
        CampaignService(store, rules),
        TaskService(store, stub),
        SubmissionService(store, rules),
        ReviewService(store, rules),
    ]
    server = Server(identity_of("annotation"), "127.0.0.1:0", servicers)
    server.start()
    door = open_channel(server.address, identity_of("gateway"))
    yield Service(server.address, door, clock, postgres)
    door.close()
    server.stop()
    peers.close()

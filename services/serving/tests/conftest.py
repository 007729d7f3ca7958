"""Fixtures: the serving service on a real database, object store and Triton, with fake services; tests step its workers."""

import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from prometheus_client import CollectorRegistry
from serving_builders import FakeDatasets, FakeItems, FakeRegistry
from serving_service import IDLE_MAX, IMAGES_IN_FLIGHT_MAX, Serving
from vesta_common.clock import ManualClock
from vesta_common.media.large_annotations import LargeAnnotations
from vesta_common.rpc.admission import Admission
from vesta_common.rpc.client import open_channel
from vesta_common.rpc.server import Server
from vesta_common.sandbox import Sandbox
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Postgres
from vesta_contracts.datasets.v1 import DatasetServiceStub, ItemServiceStub
from vesta_contracts.serving.v1 import DeploymentServiceStub, PredictionServiceStub
from vesta_contracts.training.v1 import ModelServiceStub
from vesta_local.testing import identity_of
from vesta_serving.api import OUTLINED, DeploymentService, PredictionService
from vesta_serving.deployments.deployer import WHOLE_KEPT, Deployer
from vesta_serving.model_files import ModelFiles
from vesta_serving.predictions.image_reader import ImageReader
from vesta_serving.predictions.prediction_log import PredictionLog
from vesta_serving.predictions.predictor import Predictor
from vesta_serving.registry import Registry
from vesta_serving.scoring.scorer import Scorer
from vesta_serving.settings import Settings
from vesta_serving.store import Store
from vesta_serving.triton.replicas import Tritons


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(1)
    yield sandbox
    sandbox.close()


@pytest.fixture
def serving(service_settings: Callable[[str], dict[str, Any]], triton: str, sandbox: Sandbox) -> Iterator[Serving]:
    settings = Settings(
        **service_settings("serving"), datasets_address="-", training_address="-", triton_address=triton
    )
    postgres = Postgres(settings.postgres_url, settings.postgres_schema).open()
    postgres.migrate("vesta_serving")
    clock, media = ManualClock(), ObjectStore.of(settings)
    registry, items = FakeRegistry(media), FakeItems(media)
    datasets = FakeDatasets(items)
    peers = Server(identity_of("peers"), "127.0.0.1:0", [registry, items, datasets])
    peers.start()
    channel = open_channel(peers.address, identity_of("serving"))
    store, asked, item_stub = Store(postgres, clock), Tritons(settings.triton_address), ItemServiceStub(channel)
    versions = Registry(store, ModelServiceStub(channel))
    repository = ObjectStore.of(settings.model_copy(update={"s3_prefix": ""}))
    files = ModelFiles(store, media)
    deployer = Deployer(
        store, versions, asked, files, repository, clock, gpu=False, instance_count=2, idle_max=IDLE_MAX
    )
    clock.advance(WHOLE_KEPT)  # not in an upgrade: the models of other tests are unloaded
    admission = Admission("predict", timedelta(minutes=1), 4, IMAGES_IN_FLIGHT_MAX, time.monotonic)
    predictor = Predictor(store, versions, files, asked, deployer, clock, admission)
    dataset_stub = DatasetServiceStub(channel)
    scorer = Scorer(store, predictor, item_stub, dataset_stub, media, LargeAnnotations(media), clock)
    log = PredictionLog(store, clock, CollectorRegistry(), timedelta(days=30))
    api = DeploymentService(store, versions, predictor, log, ImageReader(item_stub, media, sandbox), dataset_stub)
    server = Server(identity_of("serving"), "127.0.0.1:0", [api, PredictionService(store)], outlined=OUTLINED)
    server.start()
    door = open_channel(server.address, identity_of("gateway"))
    yield Serving(
        deployments=DeploymentServiceStub(door),
        predictions=PredictionServiceStub(door),
        registry=registry,
        items=items,
        datasets=datasets,
        store=store,
        triton=asked,
        repository=repository,
        deployer=deployer,
        files=files,
        predictor=predictor,
        scorer=scorer,
        log=log,
        clock=clock,
        address=server.address,
    )
    door.close()
    server.stop()
    channel.close()
    peers.stop()
    postgres.close()

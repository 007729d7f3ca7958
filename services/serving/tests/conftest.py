"""The serving service on the real database, object store and Triton, beside small peers; its workers are stepped by the tests."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from prometheus_client import CollectorRegistry
from serving_builders import PROJECT, FakeDatasets, FakeItems, FakeRegistry
from vesta_common.client import open_channel
from vesta_common.clock import ManualClock
from vesta_common.events import new_event
from vesta_common.objects import ObjectStore
from vesta_common.postgres import Postgres
from vesta_common.sandbox import Sandbox
from vesta_common.server import Server
from vesta_contracts.datasets.v1 import DatasetServiceStub, Item, ItemAdded, ItemServiceStub
from vesta_contracts.serving.v1 import (
    CreateDeploymentRequest,
    Deployment,
    DeploymentServiceStub,
    GetDeploymentRequest,
    PredictInput,
    PredictionMade,
    PredictionServiceStub,
    PredictRequest,
    PredictResponse,
)
from vesta_contracts.training.v1 import ModelServiceStub
from vesta_serving.api import DeploymentService, PredictionService
from vesta_serving.deployer import Deployer
from vesta_serving.events import Reactions
from vesta_serving.prediction_log import PredictionLog
from vesta_serving.predictor import Predictor
from vesta_serving.registry import Registry
from vesta_serving.scorer import Scorer
from vesta_serving.settings import Settings
from vesta_serving.store import Store
from vesta_serving.triton import Triton

IMAGES_IN_FLIGHT_MAX = 8


@dataclass
class Serving:
    """The service: its doors, its workers, and its peers."""

    deployments: DeploymentServiceStub
    predictions: PredictionServiceStub
    registry: FakeRegistry
    items: FakeItems
    datasets: FakeDatasets
    store: Store
    triton: Triton
    repository: ObjectStore
    deployer: Deployer
    predictor: Predictor
    scorer: Scorer
    log: PredictionLog
    clock: ManualClock

    def deployed(self, version: str, name: str = "vans", **fields: Any) -> Deployment:
        """A deployment whose version was tried."""
        made = self.deployments.CreateDeployment(
            CreateDeploymentRequest(
                parent=PROJECT, deployment_id=name, deployment=Deployment(model_version=version, **fields)
            )
        )
        self.deployer.step()
        return self.got(made.name)

    def got(self, name: str) -> Deployment:
        return self.deployments.GetDeployment(GetDeploymentRequest(name=name))

    def predict(self, deployment: Deployment, *inputs: PredictInput, embedding: bool = False) -> PredictResponse:
        return self.deployments.Predict(PredictRequest(name=deployment.name, inputs=inputs, embedding=embedding))

    def arrives(self, item: Item) -> None:
        """What the event of a new item does."""
        event = new_event("datasets", item.name, ItemAdded(item=item.name, media=item.media), self.clock.now())
        with self.store.postgres.transaction() as connection:
            Reactions(self.store).handle_item_added(connection, event)

    def open_transactions(self) -> int:
        """How many of the service's transactions are open and idle just now."""
        with self.store.postgres.connect() as connection:
            row = connection.execute(
                "SELECT count(*) AS count FROM pg_stat_activity"
                " WHERE application_name = %s AND state LIKE 'idle in transaction%%'",
                (f"vesta-{self.store.postgres.schema}",),
            ).fetchone()
        return int(row["count"]) if row else 0

    def told(self, kind: type[Any] | None = None) -> list[Any]:
        """The events in the outbox: their types, or the payloads of one kind."""
        with self.store.postgres.transaction() as connection:
            rows = connection.execute("SELECT headers, value FROM outbox ORDER BY id").fetchall()
        types = [_type_of(row["headers"]) for row in rows]
        if kind is None:
            return types
        ending = {PredictionMade: "prediction.v1.made"}[kind]
        return [
            kind.FromString(bytes(row["value"])) for row, name in zip(rows, types, strict=True) if name.endswith(ending)
        ]


def _type_of(headers: Any) -> str:
    pairs = headers.items() if isinstance(headers, dict) else headers
    return next(str(value) for key, value in pairs if key == "ce_type")


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
    peers = Server("peers", "127.0.0.1:0", [registry, items, datasets])
    peers.start()
    channel = open_channel(peers.address, "serving")
    store, asked, item_stub = Store(postgres, clock), Triton(settings.triton_address), ItemServiceStub(channel)
    versions = Registry(store, ModelServiceStub(channel))
    repository = ObjectStore.of(settings.model_copy(update={"s3_prefix": ""}))
    deployer = Deployer(store, versions, asked, media, repository, gpu=False)
    predictor = Predictor(store, versions, asked, deployer, clock, IMAGES_IN_FLIGHT_MAX)
    scorer = Scorer(store, predictor, item_stub, DatasetServiceStub(channel), media, clock)
    log = PredictionLog(store, clock, CollectorRegistry(), timedelta(days=30))
    api = DeploymentService(store, versions, predictor, log, item_stub, media, sandbox)
    server = Server("serving", "127.0.0.1:0", [api, PredictionService(store)])
    server.start()
    door = open_channel(server.address, "tests")
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
        predictor=predictor,
        scorer=scorer,
        log=log,
        clock=clock,
    )
    door.close()
    server.stop()
    channel.close()
    peers.stop()
    postgres.close()

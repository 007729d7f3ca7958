"""The serving service in tests: its API, its workers, and fake services."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from serving_builders import PROJECT, FakeDatasets, FakeItems, FakeRegistry, a_picture
from vesta_common.clock import ManualClock
from vesta_common.events.cloudevents import new_event
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.datasets.v1 import Item, ItemCreated
from vesta_contracts.serving.v1 import (
    CreateDeploymentRequest,
    Deployment,
    DeploymentServiceStub,
    GetDeploymentRequest,
    PredictInput,
    PredictionCreated,
    PredictionServiceStub,
    PredictRequest,
    PredictResponse,
    UpdateDeploymentRequest,
)
from vesta_serving.deployments.deployer import Deployer
from vesta_serving.event_handlers import EventHandlers
from vesta_serving.model_files import ModelFiles
from vesta_serving.predictions.prediction_log import PredictionLog
from vesta_serving.predictions.predictor import Predictor
from vesta_serving.scoring.scorer import Scorer
from vesta_serving.store import Store
from vesta_serving.triton.replicas import Tritons

IMAGES_IN_FLIGHT_MAX = 8
RED, GREEN = PredictInput(data=a_picture("red")), PredictInput(data=a_picture("lime", "PNG"))
IDLE_MAX = timedelta(hours=1)


@dataclass
class Serving:
    """The service: its API, its workers, and fake services."""

    deployments: DeploymentServiceStub
    predictions: PredictionServiceStub
    registry: FakeRegistry
    items: FakeItems
    datasets: FakeDatasets
    store: Store
    triton: Tritons
    repository: ObjectStore
    deployer: Deployer
    files: ModelFiles
    predictor: Predictor
    scorer: Scorer
    log: PredictionLog
    clock: ManualClock
    address: str

    def deployed(self, version: str, name: str = "vans", **fields: Any) -> Deployment:
        """Creates a deployment and steps the deployer."""
        made = self.deployments.CreateDeployment(
            CreateDeploymentRequest(
                parent=PROJECT, deployment_id=name, deployment=Deployment(model_version=version, **fields)
            )
        )
        self.deployer.step()
        return self.got(made.name)

    def triton_name(self, version: str) -> str:
        """Returns Triton's name of the model that a version is served with."""
        return self.files.parts(self.predictor._registry.get(version)).triton.name

    def got(self, name: str) -> Deployment:
        return self.deployments.GetDeployment(GetDeploymentRequest(name=name))

    def moved(self, deployment: Deployment, version: str, etag: str = "") -> Deployment:
        """Updates the deployment to another version and steps the deployer."""
        self.deployments.UpdateDeployment(
            UpdateDeploymentRequest(
                deployment=Deployment(name=deployment.name, model_version=version, etag=etag),
                update_mask=FieldMask(paths=["model_version"]),
            )
        )
        self.deployer.step()
        return self.got(deployment.name)

    def predict(self, deployment: Deployment, *inputs: PredictInput, embedding: bool = False) -> PredictResponse:
        return self.deployments.Predict(PredictRequest(name=deployment.name, inputs=inputs, embedding=embedding))

    def score(self) -> None:
        """Steps the scorer until nothing is left to score."""
        while self.scorer.step():
            pass

    def arrives(self, item: Item) -> None:
        """Handles the event of a new item."""
        event = new_event("datasets", item.name, ItemCreated(item=item.name, media=item.media), self.clock.now())
        with self.store.postgres.transaction() as connection:
            EventHandlers(self.store).handle_item_created(connection, event)

    def open_transactions(self) -> int:
        """Returns the number of the service's transactions that are idle in transaction."""
        with self.store.postgres.connect() as connection:
            row = connection.execute(
                "SELECT count(*) AS count FROM pg_stat_activity"
                " WHERE application_name = %s AND state LIKE 'idle in transaction%%'",
                (f"vesta-{self.store.postgres.schema}",),
            ).fetchone()
        return int(row["count"]) if row else 0

    def waiting_for_locks(self) -> int:
        """Returns the number of the service's statements that wait for a lock."""
        with self.store.postgres.connect() as connection:
            row = connection.execute(
                "SELECT count(*) AS count FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'",
                (f"vesta-{self.store.postgres.schema}",),
            ).fetchone()
        return int(row["count"]) if row else 0

    def told(self, kind: type[Any] | None = None) -> list[Any]:
        """Returns the events in the outbox: their types, or the payloads of one kind."""
        with self.store.postgres.transaction() as connection:
            rows = connection.execute("SELECT headers, value FROM outbox ORDER BY id").fetchall()
        types = [_type_of(row["headers"]) for row in rows]
        if kind is None:
            return types
        ending = {PredictionCreated: "prediction.v1.created"}[kind]
        return [
            kind.FromString(bytes(row["value"])) for row, name in zip(rows, types, strict=True) if name.endswith(ending)
        ]


def labels(serving: Serving, deployment: Deployment, *inputs: PredictInput) -> list[str]:
    """Returns the first label of each prediction, or its error reason."""
    return [entry.reason or entry.labels[0].concept for entry in serving.predict(deployment, *inputs).predictions]


def _type_of(headers: Any) -> str:
    pairs = headers.items() if isinstance(headers, dict) else headers
    return next(str(value) for key, value in pairs if key == "ce_type")

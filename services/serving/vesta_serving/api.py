"""The gRPC API: deployments, predictions and the prediction log."""

import hashlib
from collections.abc import Sequence

import grpc
from google.protobuf import empty_pb2
from vesta_common.errors import FailedPrecondition, VestaError
from vesta_common.ids import new_id
from vesta_common.media.task_types import makes_predictions, model_task_type
from vesta_common.resources import filters
from vesta_common.resources.etags import check_etag
from vesta_common.resources.masks import apply_update
from vesta_common.resources.methods import create_once, find_answer, run_once
from vesta_common.resources.pages import read_page, within_bytes
from vesta_common.rpc import outline
from vesta_common.rpc.admission import deadline_passed
from vesta_common.runtime.service import BackgroundTask
from vesta_common.storage.postgres import Connection
from vesta_contracts.datasets.v1 import DatasetServiceStub
from vesta_contracts.serving.v1 import (
    CreateDeploymentRequest,
    DeleteDeploymentRequest,
    Deployment,
    DeploymentRolledBack,
    DeploymentServiceServicer,
    GetDeploymentRequest,
    GetPredictionRequest,
    ImagePrediction,
    ListDeploymentsRequest,
    ListDeploymentsResponse,
    ListPredictionsRequest,
    ListPredictionsResponse,
    Prediction,
    PredictionServiceServicer,
    PredictRequest,
    PredictResponse,
    RollbackDeploymentRequest,
    UpdateDeploymentRequest,
)

from vesta_serving.acceptance import describe
from vesta_serving.predictions.image_reader import ImageReader
from vesta_serving.predictions.prediction_log import PredictionLog
from vesta_serving.predictions.predictor import PredictedImage, Predictor, ServedModel
from vesta_serving.registry import Registry
from vesta_serving.store import Store
from vesta_serving.suitability import check_datasets, check_successor

OUTLINED = ("/vesta.serving.v1.DeploymentService/Predict",)
"""Methods that read the files of a request with `vesta_common.rpc.outline.contents`."""

_MUTABLE = ("display_name", "model_version", "uncertainty", "datasets")
_PREDICTION_FIELDS = {
    "item": filters.Field("item"),
    "label": filters.Field("", has="(%(value)s = ANY(coalesce(labels, ARRAY[label])))"),
    "score": filters.Field("score", float, ordered=True),
    "uncertain": filters.Field("uncertain", filters.boolean),
    "model_version": filters.Field("model_version"),
    "create_time": filters.Field("create_time", filters.instant, ordered=True),
}


class DeploymentService(DeploymentServiceServicer):
    """Implements DeploymentService.

    Args:
        loops: the background tasks of this process, which are woken after a change.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        predictor: Predictor,
        prediction_log: PredictionLog,
        images: ImageReader,
        datasets: DatasetServiceStub,
        loops: Sequence[BackgroundTask] = (),
    ) -> None:
        self._store = store
        self._registry = registry
        self._predictor = predictor
        self._log = prediction_log
        self._images = images
        self._datasets = datasets
        self._loops = loops

    def CreateDeployment(self, request: CreateDeploymentRequest, context: grpc.ServicerContext) -> Deployment:
        """Stores the deployment. The model version is loaded asynchronously."""
        if answer := find_answer(self._store.postgres, request, Deployment):
            return self._with_version(answer)
        version = self._registry.confirm(request.deployment.model_version)
        version.task.check_thresholds(request.deployment.uncertainty.thresholds, version.vocabulary)
        check_datasets(version.model, request.deployment.datasets, self._datasets)
        name = f"{request.parent}/deployments/{request.deployment_id or new_id()}"

        def create(connection: Connection) -> Deployment:
            deployment = Deployment()
            deployment.CopyFrom(request.deployment)
            deployment.name = name
            self._store.insert(connection, deployment)
            return self._store.message(connection, self._store.get(connection, name))

        created = create_once(self._store.postgres, request, Deployment, name, create)
        self._wake()
        return self._with_version(created)

    def GetDeployment(self, request: GetDeploymentRequest, context: grpc.ServicerContext) -> Deployment:
        with self._store.postgres.transaction() as connection:
            deployment = self._store.message(connection, self._store.get(connection, request.name))
        return self._with_version(deployment)

    def ListDeployments(
        self, request: ListDeploymentsRequest, context: grpc.ServicerContext
    ) -> ListDeploymentsResponse:
        """Lists a project's deployments ordered by name."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            rows = self._store.list_page(connection, request.parent, page.cursor[0] if page.cursor else "", page.limit)
            page_rows, token = page.cut(rows, lambda row: (row.name,))
            deployments = self._store.messages(connection, page_rows)
        return ListDeploymentsResponse(deployments=map(self._with_version, deployments), next_page_token=token)

    def UpdateDeployment(self, request: UpdateDeploymentRequest, context: grpc.ServicerContext) -> Deployment:
        """Updates the deployment. A new model version is loaded asynchronously and then promoted."""
        name = request.deployment.name
        seen = self.GetDeployment(GetDeploymentRequest(name=name), context)
        requested = apply_update(seen, request.deployment, request.update_mask, _MUTABLE)
        # Outside the transaction, because it may call the training and datasets services.
        is_new = requested.model_version != seen.model_version
        version = (self._registry.confirm if is_new else self._registry.get)(requested.model_version)
        if is_new and seen.stable_version:
            check_successor(version.model, self._registry.get(seen.stable_version).model)
        unchecked = set(requested.datasets) if is_new else set(requested.datasets) - set(seen.datasets)
        check_datasets(version.model, sorted(unchecked), self._datasets)
        # Unchanged thresholds may belong to an older version.
        if requested.uncertainty.thresholds != seen.uncertainty.thresholds:
            version.task.check_thresholds(requested.uncertainty.thresholds, version.vocabulary)
        with self._store.postgres.transaction() as connection:
            row = self._store.lock(connection, name)
            current = self._store.message(connection, row)
            check_etag(request.deployment.etag, self._store.etag_part(current))
            updated = apply_update(current, request.deployment, request.update_mask, _MUTABLE)
            self._store.update(connection, row, updated)
            answer = self._store.message(connection, self._store.get(connection, name))
        self._predictor.forget(name)
        self._wake()
        return self._with_version(answer)

    def DeleteDeployment(self, request: DeleteDeploymentRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Deletes a deployment. The deployer later unloads models that no other deployment uses."""
        with self._store.postgres.transaction() as connection:
            self._store.lock(connection, request.name)
            self._store.delete(connection, request.name)
        self._predictor.forget(request.name)
        return empty_pb2.Empty()

    def RollbackDeployment(self, request: RollbackDeploymentRequest, context: grpc.ServicerContext) -> Deployment:
        """Makes the previous version stable again. It is still loaded, unless the deployment was not used for long."""
        if answer := find_answer(self._store.postgres, request, Deployment):
            return self._with_version(answer)
        with self._store.postgres.transaction() as connection:
            seen = self._store.get(connection, request.name)
        # Outside the transaction, because it may call the training service. Inside, the registry finds the versions in its cache.
        for version in (seen.stable, seen.previous):
            if version:
                self._registry.get(version)

        def roll_back(connection: Connection) -> Deployment:
            row = self._store.lock(connection, request.name)
            if not row.previous:
                raise FailedPrecondition(
                    f"{request.name} has no previous version; set model_version instead", reason="NO_PREVIOUS_VERSION"
                )
            spaces = {self._registry.get(version).model.embedding_digest for version in (row.stable, row.previous)}
            moved = self._store.roll_back(
                connection,
                request.name,
                lambda deployment: DeploymentRolledBack(deployment=deployment),
                embeds=len(spaces) > 1,
            )
            return self._store.message(connection, moved or row)

        answer = run_once(self._store.postgres, request, Deployment, roll_back)
        self._predictor.forget(request.name)
        self._wake()
        return self._with_version(answer)

    def Predict(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        """Predicts each image, or returns the reason why an image was rejected."""
        served = self._predictor.served_model(request.name)
        files = _files(request)
        with self._predictor.admitted(len(request.inputs), context.time_remaining()):
            decoded = self._images.read(request, files, served.version.input)
            if not context.is_active():  # the client has cancelled or its deadline has passed
                raise deadline_passed()
            pictures = [entry for entry in decoded if not isinstance(entry, VestaError)]
            predicted = self._predictor.predict(served, pictures, embeds=request.embedding) if pictures else []
        results = iter(predicted)
        predictions = [
            ImagePrediction(reason=entry.reason, message=str(entry))
            if isinstance(entry, VestaError)
            else self._prediction(served, sent.item, file, next(results), embeds=request.embedding)
            for sent, file, entry in zip(request.inputs, files, decoded, strict=True)
        ]
        return PredictResponse(predictions=predictions)

    def _prediction(
        self, served: ServedModel, item: str, file: bytes | memoryview, result: PredictedImage, *, embeds: bool
    ) -> ImagePrediction:
        digest = "" if item else hashlib.sha256(file).hexdigest()
        name = f"{served.row.name}/predictions/{new_id()}"
        self._log.add(served.row.name, Prediction(name=name, item=item, sha256=digest, prediction=result.prediction))
        return ImagePrediction(
            prediction=result.prediction,
            embedding=result.embedding.tolist() if embeds else (),
            embedding_digest=served.version.model.embedding_digest if embeds else "",
            # For callers of the previous version.
            labels=[score for score in result.prediction.scores if score.predicted],
            other_labels=[score for score in result.prediction.scores if not score.predicted],
            model_version=result.prediction.model_version,
            uncertain=result.prediction.uncertain,
            margin=result.prediction.margin,
        )

    def _with_version(self, deployment: Deployment) -> Deployment:
        """Adds the task type, and what the stable version's predictions are accepted by; nothing if a version is not known here."""
        if requested := self._registry.find(deployment.model_version):
            deployment.task_type = model_task_type(requested.model)
        stable = self._registry.find(deployment.stable_version)
        if stable is not None and makes_predictions(stable.model):
            deployment.acceptance.CopyFrom(describe(deployment.uncertainty, stable.model))
        return deployment

    def _wake(self) -> None:
        for loop in self._loops:
            loop.wake()


def _files(request: PredictRequest) -> list[bytes | memoryview]:
    """Returns the file of each input, without a copy of large ones; empty for an input that is an item."""
    large = iter(outline.contents())
    return [next(large) if sent.data == outline.PLACEHOLDER else sent.data for sent in request.inputs]


class PredictionService(PredictionServiceServicer):
    """Implements PredictionService."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def GetPrediction(self, request: GetPredictionRequest, context: grpc.ServicerContext) -> Prediction:
        with self._store.postgres.transaction() as connection:
            return self._store.logged_predictions.get(connection, request.name)

    def ListPredictions(
        self, request: ListPredictionsRequest, context: grpc.ServicerContext
    ) -> ListPredictionsResponse:
        """Lists entries of the prediction log, newest first."""
        page = read_page(request)
        where = filters.compile_filter(request.filter, _PREDICTION_FIELDS)
        with self._store.postgres.transaction() as connection:
            deployment = self._store.get(connection, request.parent)
            before = page.cursor[0] if page.cursor else ""
            rows = self._store.logged_predictions.list_page(connection, deployment, where, before, page.limit)
        predictions, token = within_bytes(page, rows).cut(rows, lambda entry: (entry.name,))
        return ListPredictionsResponse(predictions=predictions, next_page_token=token)

"""The gRPC API: deployments, predictions and the prediction log."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial

import grpc
from google.protobuf import empty_pb2
from vesta_common.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound, VestaError
from vesta_common.ids import new_id
from vesta_common.media.images import ModelPicture, model_picture
from vesta_common.media.model_input import Box, InputFormat
from vesta_common.resources import filters
from vesta_common.resources.etags import check_etag
from vesta_common.resources.masks import apply_update
from vesta_common.resources.methods import create_once, find_answer, run_once
from vesta_common.resources.pages import read_page
from vesta_common.rpc import outline
from vesta_common.rpc.admission import deadline_passed
from vesta_common.runtime.service import BackgroundTask
from vesta_common.sandbox import Sandbox
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Connection
from vesta_contracts.datasets.v1 import GetItemRequest, ItemServiceStub
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
    PredictInput,
    Prediction,
    PredictionServiceServicer,
    PredictRequest,
    PredictResponse,
    RollbackDeploymentRequest,
    UpdateDeploymentRequest,
)

from vesta_serving.predictions.prediction_log import PredictionLog
from vesta_serving.predictions.predictor import PredictedImage, Predictor, ServedModel
from vesta_serving.registry import Registry
from vesta_serving.store import Store

FETCH_THREADS = 8
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
        items: ItemServiceStub,
        media: ObjectStore,
        sandbox: Sandbox,
        loops: Sequence[BackgroundTask] = (),
    ) -> None:
        self._store = store
        self._registry = registry
        self._predictor = predictor
        self._log = prediction_log
        self._items = items
        self._media = media
        self._sandbox = sandbox
        self._loops = loops
        self._fetchers = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="stored")

    def CreateDeployment(self, request: CreateDeploymentRequest, context: grpc.ServicerContext) -> Deployment:
        """Stores the deployment. The model version is loaded asynchronously."""
        if answer := find_answer(self._store.postgres, request, Deployment):
            return answer
        version = self._registry.confirm(request.deployment.model_version)
        version.task.check_thresholds(request.deployment.uncertainty.thresholds, version.vocabulary)
        name = f"{request.parent}/deployments/{request.deployment_id or new_id()}"

        def create(connection: Connection) -> Deployment:
            deployment = Deployment()
            deployment.CopyFrom(request.deployment)
            deployment.name = name
            self._store.insert(connection, deployment)
            return self._store.message(connection, self._store.get(connection, name))

        created = create_once(self._store.postgres, request, Deployment, name, create)
        self._wake()
        return created

    def GetDeployment(self, request: GetDeploymentRequest, context: grpc.ServicerContext) -> Deployment:
        with self._store.postgres.transaction() as connection:
            return self._store.message(connection, self._store.get(connection, request.name))

    def ListDeployments(
        self, request: ListDeploymentsRequest, context: grpc.ServicerContext
    ) -> ListDeploymentsResponse:
        """Lists a project's deployments ordered by name."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            rows = self._store.list_page(connection, request.parent, page.cursor[0] if page.cursor else "", page.limit)
            page_rows, token = page.cut(rows, lambda row: (row.name,))
            deployments = self._store.messages(connection, page_rows)
        return ListDeploymentsResponse(deployments=deployments, next_page_token=token)

    def UpdateDeployment(self, request: UpdateDeploymentRequest, context: grpc.ServicerContext) -> Deployment:
        """Updates the deployment. A new model version is loaded asynchronously and then promoted."""
        name = request.deployment.name
        seen = self.GetDeployment(GetDeploymentRequest(name=name), context)
        requested = apply_update(seen, request.deployment, request.update_mask, _MUTABLE)
        # Outside the transaction, because it may call the training service.
        is_new = requested.model_version != seen.model_version
        version = (self._registry.confirm if is_new else self._registry.get)(requested.model_version)
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
        return answer

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
            return answer
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
        return answer

    def Predict(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        """Predicts each image, or returns the reason why an image was rejected."""
        served = self._predictor.served_model(request.name)
        files = _files(request)
        with self._predictor.admitted(len(request.inputs), context.time_remaining()):
            decoded = self._decode(request, files, served.version.input)
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

    def _decode(
        self, request: PredictRequest, files: Sequence[bytes | memoryview], declared: InputFormat
    ) -> list[ModelPicture | VestaError]:
        """Returns the model input of each image, or the error. Decodes images from outside in the sandbox, stored items in this process."""
        project = request.name.partition("/deployments/")[0]
        inside = [sent for sent in request.inputs if sent.item]
        # Each call runs in a copy of the caller's context, so that it has the caller's trace and identity.
        stored = self._fetchers.map(
            lambda context, sent: context.run(self._stored, project, sent, declared),
            [copy_context() for _ in inside],
            inside,
        )
        outside = [(sent, file) for sent, file in zip(request.inputs, files, strict=True) if not sent.item]
        if len(outside) == 1 or any(sent.HasField("region") for sent, _ in outside):
            decoded = self._fetchers.map(lambda each: self._alone(each[0], each[1], declared), outside)
        else:
            decoded = iter(self._sandbox.map(partial(model_picture, declared=declared), [file for _, file in outside]))
        return [next(stored) if sent.item else next(decoded) for sent in request.inputs]

    def _alone(self, sent: PredictInput, data: bytes | memoryview, declared: InputFormat) -> ModelPicture | VestaError:
        try:
            return self._sandbox.run(partial(model_picture, declared=declared, region=_region(sent)), data)
        except VestaError as error:
            return error

    def _stored(self, project: str, sent: PredictInput, declared: InputFormat) -> ModelPicture | VestaError:
        item = sent.item
        if not item.startswith(f"{project}/datasets/"):
            return NotFound(f"{item} does not exist in {project}", reason="RESOURCE_NOT_FOUND", metadata={"name": item})
        try:
            media = self._items.GetItem(GetItemRequest(name=item)).media
            return model_picture(self._media.get(media.object_key, sha256=media.sha256), declared, _region(sent))
        except (NotFound, InvalidArgument, DataLoss) as error:
            return error

    def _prediction(
        self, served: ServedModel, item: str, file: bytes | memoryview, result: PredictedImage, *, embeds: bool
    ) -> ImagePrediction:
        digest = "" if item else hashlib.sha256(file).hexdigest()
        name = f"{served.row.name}/predictions/{new_id()}"
        self._log.add(served.row.name, Prediction(name=name, item=item, sha256=digest, prediction=result.prediction))
        return ImagePrediction(
            prediction=result.prediction,
            embedding=result.embedding.tolist() if embeds else (),
            # For callers of the previous version.
            labels=[score for score in result.prediction.scores if score.predicted],
            other_labels=[score for score in result.prediction.scores if not score.predicted],
            model_version=result.prediction.model_version,
            uncertain=result.prediction.uncertain,
            margin=result.prediction.margin,
        )

    def _wake(self) -> None:
        for loop in self._loops:
            loop.wake()


def _files(request: PredictRequest) -> list[bytes | memoryview]:
    """Returns the file of each input, without a copy of large ones; empty for an input that is an item."""
    large = iter(outline.contents())
    return [next(large) if sent.data == outline.PLACEHOLDER else sent.data for sent in request.inputs]


def _region(sent: PredictInput) -> Box | None:
    """Returns the region of an input to predict; None for all of it."""
    region = sent.region
    return (region.x_min_px, region.y_min_px, region.x_max_px, region.y_max_px) if sent.HasField("region") else None


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
        predictions, token = page.cut(rows, lambda entry: (entry.name,))
        return ListPredictionsResponse(predictions=predictions, next_page_token=token)

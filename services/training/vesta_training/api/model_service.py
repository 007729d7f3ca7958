"""ModelService: the model registry."""

from collections.abc import Iterator, Sequence

import grpc
from google.api import httpbody_pb2
from google.protobuf import empty_pb2
from vesta_common.resources.etags import check_etag
from vesta_common.resources.methods import revise
from vesta_common.resources.names import parent_of, project_of
from vesta_common.resources.page_keys import by_name
from vesta_common.resources.pages import Page, bad_token, read_page, within_bytes
from vesta_common.runtime.service import BackgroundTask
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.training.v1 import (
    DeleteModelRequest,
    DeleteModelVersionRequest,
    DownloadModelVersionRequest,
    GetModelRequest,
    GetModelVersionRequest,
    ListModelsRequest,
    ListModelsResponse,
    ListModelVersionsRequest,
    ListModelVersionsResponse,
    Model,
    ModelServiceServicer,
    ModelVersion,
    UpdateModelRequest,
)

from vesta_training.models.deletion_checks import check_removable, check_unused, deployed
from vesta_training.models.deployments import Deployments
from vesta_training.store import Store
from vesta_training.store.models import NUMBER_MAX


class ModelService(ModelServiceServicer):
    """Reads, updates and deletes models and their versions.

    Args:
        loops: the background tasks that delete files; they are woken after a deletion.
    """

    def __init__(
        self, store: Store, objects: ObjectStore, deployments: Deployments, loops: Sequence[BackgroundTask] = ()
    ) -> None:
        self._store = store
        self._objects = objects
        self._deployments = deployments
        self._loops = loops

    def GetModel(self, request: GetModelRequest, context: grpc.ServicerContext) -> Model:
        with self._store.postgres.transaction() as connection:
            return self._store.models.get(connection, request.name)

    def ListModels(self, request: ListModelsRequest, context: grpc.ServicerContext) -> ListModelsResponse:
        """Lists the models of a project, ordered by name."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            rows = self._store.models.list_page(connection, request.parent, page.after, page.limit)
        models, token = page.cut(rows, by_name)
        return ListModelsResponse(models=models, next_page_token=token)

    def UpdateModel(self, request: UpdateModelRequest, context: grpc.ServicerContext) -> Model:
        """Updates the display name of a model."""
        with self._store.postgres.transaction() as connection:
            current = self._store.models.lock(connection, request.model.name)
            updated = revise(current, request.model, request.update_mask, ("display_name",))
            self._store.models.update(connection, updated)
            return self._store.models.get(connection, current.name)

    def DeleteModel(self, request: DeleteModelRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Deletes a model that is not in use. Its versions are deleted only with `force`."""
        with self._store.postgres.transaction() as connection:
            self._store.models.get(connection, request.name)
        project = parent_of(request.name)
        deployment_of = deployed(self._deployments.of(project))
        with self._store.postgres.transaction() as connection:
            model = self._store.models.lock(connection, request.name)
            check_etag(request.etag, model)
            versions = self._store.models.lock_versions(connection, model.name)
            open_runs = self._store.runs.list_unfinished_of(connection, project)
            check_removable(model.name, versions, open_runs, force=request.force)
            check_unused(versions, deployment_of, open_runs)
            self._store.models.delete_versions(connection, versions)
            self._store.models.delete(connection, model.name)
        self._wake()
        return empty_pb2.Empty()

    def DeleteModelVersion(self, request: DeleteModelVersionRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Deletes a version that is not in use."""
        with self._store.postgres.transaction() as connection:
            self._store.models.get_version(connection, request.name)
        project = project_of(request.name)
        deployment_of = deployed(self._deployments.of(project))
        with self._store.postgres.transaction() as connection:
            version = self._store.models.lock_version(connection, request.name)
            check_unused([version], deployment_of, self._store.runs.list_unfinished_of(connection, project))
            self._store.models.delete_versions(connection, [version])
        self._wake()
        return empty_pb2.Empty()

    def GetModelVersion(self, request: GetModelVersionRequest, context: grpc.ServicerContext) -> ModelVersion:
        with self._store.postgres.transaction() as connection:
            return self._store.models.get_version(connection, request.name)

    def ListModelVersions(
        self, request: ListModelVersionsRequest, context: grpc.ServicerContext
    ) -> ListModelVersionsResponse:
        """Lists the versions of a model, newest first."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            self._store.models.get(connection, request.parent)
            before = _number_before(page)
            rows = self._store.models.list_versions(connection, request.parent, before, page.limit)
        versions, token = within_bytes(page, rows).cut(rows, lambda version: (version.name.rpartition("/")[2],))
        return ListModelVersionsResponse(model_versions=versions, next_page_token=token)

    def DownloadModelVersion(
        self, request: DownloadModelVersionRequest, context: grpc.ServicerContext
    ) -> Iterator[httpbody_pb2.HttpBody]:
        """Streams the ONNX file, verified against its digest."""
        with self._store.postgres.transaction() as connection:
            version = self._store.models.get_version(connection, request.name)
        for chunk in self._objects.stream(version.onnx_key, sha256=version.digest):
            yield httpbody_pb2.HttpBody(content_type="application/octet-stream", data=chunk)

    def _wake(self) -> None:
        for loop in self._loops:
            loop.wake()


def _number_before(page: Page) -> int:
    if not page.cursor:
        return NUMBER_MAX
    try:
        return min(int(page.after), NUMBER_MAX)
    except ValueError as error:
        raise bad_token("it was not issued by this server") from error

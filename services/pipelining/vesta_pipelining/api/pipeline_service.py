"""The PipelineService of the gRPC API."""

import grpc
from google.protobuf import empty_pb2
from vesta_common.errors import FailedPrecondition, InvalidArgument, NotFound, Violation
from vesta_common.ids import new_id
from vesta_common.messages import copy_of
from vesta_common.resources.methods import create_once, find_answer, revise
from vesta_common.resources.names import parent_of
from vesta_common.resources.page_keys import by_name
from vesta_common.resources.pages import read_page
from vesta_common.storage.postgres import Connection
from vesta_contracts.connection.v1 import GetSourceRequest, SourceServiceStub
from vesta_contracts.pipelining.v1 import (
    CreatePipelineRequest,
    DeletePipelineRequest,
    GetPipelineRequest,
    ListPipelinesRequest,
    ListPipelinesResponse,
    Pipeline,
    PipelineServiceServicer,
    UpdatePipelineRequest,
)
from vesta_contracts.serving.v1 import DeploymentServiceStub, GetDeploymentRequest

from vesta_pipelining.store import Store

_MUTABLE = ("display_name", "steps", "age_max", "uncertain_source", "uncertain_per_minute_max")


class PipelineService(PipelineServiceServicer):
    """Implements PipelineService. Checks that a pipeline's deployment and Source exist."""

    def __init__(self, store: Store, serving: DeploymentServiceStub, sources: SourceServiceStub) -> None:
        self._store = store
        self._serving = serving
        self._sources = sources

    def CreatePipeline(self, request: CreatePipelineRequest, context: grpc.ServicerContext) -> Pipeline:
        if answer := find_answer(self._store.postgres, request, Pipeline):
            return answer
        self._check(request.parent, request.pipeline)
        name = f"{request.parent}/pipelines/{request.pipeline_id or new_id()}"

        def create(connection: Connection) -> Pipeline:
            self._store.insert_pipeline(connection, copy_of(request.pipeline, name=name))
            return self._store.get_pipeline(connection, name)

        return create_once(self._store.postgres, request, Pipeline, name, create)

    def GetPipeline(self, request: GetPipelineRequest, context: grpc.ServicerContext) -> Pipeline:
        with self._store.postgres.transaction() as connection:
            return self._store.get_pipeline(connection, request.name)

    def ListPipelines(self, request: ListPipelinesRequest, context: grpc.ServicerContext) -> ListPipelinesResponse:
        """Lists a project's pipelines ordered by name."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            rows = self._store.list_pipelines(connection, request.parent, page.after, page.limit)
        pipelines, token = page.cut(rows, by_name)
        return ListPipelinesResponse(pipelines=pipelines, next_page_token=token)

    def UpdatePipeline(self, request: UpdatePipelineRequest, context: grpc.ServicerContext) -> Pipeline:
        """Updates a pipeline. Its streams apply the change to their next frames."""
        name = request.pipeline.name
        with self._store.postgres.transaction() as connection:
            seen = self._store.get_pipeline(connection, name)
        # Other services are called outside the transaction, which must be short.
        self._check(parent_of(name), revise(seen, request.pipeline, request.update_mask, _MUTABLE))
        with self._store.postgres.transaction() as connection:
            current = self._store.lock_pipeline(connection, name)
            updated = revise(current, request.pipeline, request.update_mask, _MUTABLE)
            self._store.update_pipeline(connection, updated)
            return self._store.get_pipeline(connection, current.name)

    def DeletePipeline(self, request: DeletePipelineRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Deletes a pipeline with its streams and observations."""
        with self._store.postgres.transaction() as connection:
            self._store.delete_pipeline(connection, request.name)
        return empty_pb2.Empty()

    def _check(self, project: str, pipeline: Pipeline) -> None:
        for step in pipeline.steps:
            if step.WhichOneof("kind") is None:
                raise InvalidArgument(
                    "a step requires a kind; set its model",
                    reason="STEP_KIND_MISSING",
                    violations=[Violation("pipeline.steps", "has a step without a kind")],
                )
            _check_project(step.model.deployment, project)
            self._serving.GetDeployment(GetDeploymentRequest(name=step.model.deployment))
        if pipeline.uncertain_source:
            _check_project(pipeline.uncertain_source, project)
            source = self._sources.GetSource(GetSourceRequest(name=pipeline.uncertain_source))
            if source.WhichOneof("kind") != "upload":
                raise FailedPrecondition(
                    f"{source.name} is not a source of kind upload; choose one to forward uncertain frames to",
                    reason="SOURCE_NOT_UPLOAD",
                )


def _check_project(name: str, project: str) -> None:
    if not name.startswith(f"{project}/"):
        raise NotFound(
            f"{name} does not exist in {project}; check the name", reason="RESOURCE_NOT_FOUND", metadata={"name": name}
        )

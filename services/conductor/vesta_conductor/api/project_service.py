"""Projects over gRPC."""

import grpc
from vesta_common.clock import Clock
from vesta_common.errors import AlreadyExists, NotFound
from vesta_common.etags import check_etag, etag_of
from vesta_common.events import new_event
from vesta_common.idempotency import once
from vesta_common.ids import new_id
from vesta_common.masks import apply_update
from vesta_common.outbox import publish
from vesta_common.pages import read_page
from vesta_common.postgres import Connection, Postgres
from vesta_contracts.conductor.v1 import (
    CreateProjectRequest,
    GetProjectRequest,
    ListProjectsRequest,
    ListProjectsResponse,
    Project,
    ProjectCreated,
    ProjectServiceServicer,
    UpdateProjectRequest,
)

from vesta_conductor import store

MUTABLE = ("display_name",)


class ProjectService(ProjectServiceServicer):
    """Keeps Projects."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self._postgres = postgres
        self._clock = clock

    def CreateProject(self, request: CreateProjectRequest, context: grpc.ServicerContext) -> Project:
        def work(connection: Connection) -> Project:
            return once(connection, request, Project, lambda: self._create(connection, request))

        return self._postgres.run(work)

    def GetProject(self, request: GetProjectRequest, context: grpc.ServicerContext) -> Project:
        with self._postgres.transaction() as connection:
            return _shown(_found(store.find_project(connection, request.name), request.name))

    def ListProjects(self, request: ListProjectsRequest, context: grpc.ServicerContext) -> ListProjectsResponse:
        page = read_page(request)
        with self._postgres.transaction() as connection:
            found = store.list_projects(connection, request.names, (page.cursor or ("",))[0], page.limit)
        projects, token = page.cut(found, lambda project: (project.name,))
        return ListProjectsResponse(projects=[_shown(project) for project in projects], next_page_token=token)

    def UpdateProject(self, request: UpdateProjectRequest, context: grpc.ServicerContext) -> Project:
        name = request.project.name

        def work(connection: Connection) -> Project:
            current = _found(store.find_project(connection, name, lock=True), name)
            check_etag(request.project.etag, current)
            updated = apply_update(current, request.project, request.update_mask, MUTABLE)
            store.update_project(connection, updated, self._clock.now())
            return _shown(_found(store.find_project(connection, name), name))

        return self._postgres.run(work)

    def _create(self, connection: Connection, request: CreateProjectRequest) -> Project:
        now = self._clock.now()
        name = f"projects/{request.project_id or new_id()}"
        wanted = Project(name=name, display_name=request.project.display_name)
        if not store.insert_project(connection, wanted, now):
            raise AlreadyExists(
                f"{name} is taken; choose another project_id", reason="PROJECT_EXISTS", metadata={"name": name}
            )
        project = _shown(_found(store.find_project(connection, name), name))
        publish(connection, new_event("conductor", name, ProjectCreated(project=project), now))
        return project


def _shown(project: Project) -> Project:
    project.etag = etag_of(project)
    return project


def _found(project: Project | None, name: str) -> Project:
    if project is None:
        raise NotFound(
            f"there is no {name}; ListProjects tells which there are",
            reason="PROJECT_NOT_FOUND",
            metadata={"name": name},
        )
    return project

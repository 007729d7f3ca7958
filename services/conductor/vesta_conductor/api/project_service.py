"""Projects over gRPC."""

import grpc
from vesta_common.clock import Clock
from vesta_common.errors import AlreadyExists
from vesta_common.etags import with_etag
from vesta_common.events import new_event
from vesta_common.ids import new_id
from vesta_common.outbox import publish
from vesta_common.page_keys import by_name
from vesta_common.pages import read_page
from vesta_common.postgres import Connection, Postgres
from vesta_common.resources import existing, revise, run_once
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
        return run_once(self._postgres, request, Project, lambda connection: self._create(connection, request))

    def GetProject(self, request: GetProjectRequest, context: grpc.ServicerContext) -> Project:
        with self._postgres.transaction() as connection:
            return with_etag(_found(store.find_project(connection, request.name), request.name))

    def ListProjects(self, request: ListProjectsRequest, context: grpc.ServicerContext) -> ListProjectsResponse:
        page = read_page(request)
        with self._postgres.transaction() as connection:
            found = store.list_projects(connection, request.names, page.after, page.limit)
        projects, token = page.cut(found, by_name)
        return ListProjectsResponse(projects=[with_etag(project) for project in projects], next_page_token=token)

    def UpdateProject(self, request: UpdateProjectRequest, context: grpc.ServicerContext) -> Project:
        name = request.project.name

        def work(connection: Connection) -> Project:
            current = _found(store.find_project(connection, name, lock=True), name)
            updated = revise(current, request.project, request.update_mask, MUTABLE)
            store.update_project(connection, updated, self._clock.now())
            return with_etag(_found(store.find_project(connection, name), name))

        return self._postgres.run(work)

    def _create(self, connection: Connection, request: CreateProjectRequest) -> Project:
        now = self._clock.now()
        name = f"projects/{request.project_id or new_id()}"
        wanted = Project(name=name, display_name=request.project.display_name)
        if not store.insert_project(connection, wanted, now):
            raise AlreadyExists(
                f"{name} is taken; choose another project_id", reason="PROJECT_EXISTS", metadata={"name": name}
            )
        project = with_etag(_found(store.find_project(connection, name), name))
        publish(connection, new_event("conductor", name, ProjectCreated(project=project), now))
        return project


def _found(project: Project | None, name: str) -> Project:
    return existing(project, name, "ListProjects tells which there are", reason="PROJECT_NOT_FOUND")

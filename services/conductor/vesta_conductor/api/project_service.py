"""The ProjectService of the gRPC API."""

import grpc
from vesta_common.clock import Clock
from vesta_common.errors import AlreadyExists, FailedPrecondition
from vesta_common.events.cloudevents import new_event
from vesta_common.events.outbox import publish
from vesta_common.ids import new_id
from vesta_common.resources.etags import check_etag, with_etag
from vesta_common.resources.methods import existing, find_answer, revise, run_once
from vesta_common.resources.page_keys import by_name
from vesta_common.resources.pages import read_page
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.conductor.v1 import (
    CreateProjectRequest,
    DeleteProjectRequest,
    GetProjectRequest,
    ListProjectsRequest,
    ListProjectsResponse,
    Project,
    ProjectCreated,
    ProjectServiceServicer,
    UpdateProjectRequest,
)

from vesta_conductor import store
from vesta_conductor.projects.deletion import Deletions, counts_in_words

MUTABLE = ("display_name",)


class ProjectService(ProjectServiceServicer):
    """Implements ProjectService. `Deletions` deletes the contents of Projects."""

    def __init__(self, postgres: Postgres, deletions: Deletions, clock: Clock) -> None:
        self._postgres = postgres
        self._deletions = deletions
        self._clock = clock

    def CreateProject(self, request: CreateProjectRequest, context: grpc.ServicerContext) -> Project:
        return run_once(self._postgres, request, Project, lambda connection: self._create(connection, request))

    def GetProject(self, request: GetProjectRequest, context: grpc.ServicerContext) -> Project:
        with self._postgres.transaction() as connection:
            return with_etag(_found(store.find_project(connection, request.name), request.name))

    def ListProjects(self, request: ListProjectsRequest, context: grpc.ServicerContext) -> ListProjectsResponse:
        page = read_page(request)
        with self._postgres.transaction() as connection:
            rows = store.list_projects(
                connection, request.names, page.after, page.limit, show_deleted=request.show_deleted
            )
        projects, token = page.cut(rows, by_name)
        return ListProjectsResponse(projects=[with_etag(project) for project in projects], next_page_token=token)

    def UpdateProject(self, request: UpdateProjectRequest, context: grpc.ServicerContext) -> Project:
        name = request.project.name

        def work(connection: Connection) -> Project:
            current = get_active(connection, name)
            updated = revise(current, request.project, request.update_mask, MUTABLE)
            store.update_project(connection, updated, self._clock.now())
            return with_etag(_found(store.find_project(connection, name), name))

        return self._postgres.run(work)

    def DeleteProject(self, request: DeleteProjectRequest, context: grpc.ServicerContext) -> Project:
        if answer := find_answer(self._postgres, request, Project):
            return answer
        name = request.name
        with self._postgres.transaction() as connection:
            project = _found(store.find_project(connection, name), name)
        if project.state == Project.ACTIVE:
            check_etag(request.etag, project)
            if not request.force:
                self._check_empty(name)

        def work(connection: Connection) -> Project:
            current = _found(store.find_project(connection, name, lock=True), name)
            if current.state == Project.ACTIVE:
                check_etag(request.etag, current)
                store.begin_deletion(connection, name, "All its resources are being deleted.", self._clock.now())
            return with_etag(_found(store.find_project(connection, name), name))

        return run_once(self._postgres, request, Project, work)

    def _check_empty(self, name: str) -> None:
        counts = self._deletions.count(name)
        if counts:
            raise FailedPrecondition(
                f"{name} has {counts_in_words(counts)}; delete them first, or set force to delete all resources",
                reason="PROJECT_NOT_EMPTY",
                metadata={"name": name, **{plural: str(count) for plural, count in counts.items()}},
            )

    def _create(self, connection: Connection, request: CreateProjectRequest) -> Project:
        now = self._clock.now()
        name = f"projects/{request.project_id or new_id()}"
        new_project = Project(name=name, display_name=request.project.display_name)
        if not store.insert_project(connection, new_project, now):
            raise AlreadyExists(
                f"{name} exists, or was deleted; choose another project_id",
                reason="PROJECT_EXISTS",
                metadata={"name": name},
            )
        project = with_etag(_found(store.find_project(connection, name), name))
        publish(connection, new_event("conductor", name, ProjectCreated(project=project), now))
        return project


def get_active(connection: Connection, name: str) -> Project:
    """Returns the Project and locks its row until the transaction ends.

    Raises:
        NotFound: the Project does not exist.
        FailedPrecondition: the Project is being deleted.
    """
    project = _found(store.find_project(connection, name, lock=True), name)
    if project.state != Project.ACTIVE:
        raise FailedPrecondition(
            f"{name} is being deleted; create another project", reason="PROJECT_DELETING", metadata={"name": name}
        )
    return project


def _found(project: Project | None, name: str) -> Project:
    return existing(project, name, "ListProjects lists the existing ones", reason="PROJECT_NOT_FOUND")

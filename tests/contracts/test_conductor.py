"""What the gateway relies on of the conductor: of the real one and of its fake."""

import pytest
from contract import contract
from peers import Peer, refused
from vesta_common.errors import AlreadyExists, FailedPrecondition, NotFound
from vesta_common.ids import new_id
from vesta_contracts.conductor.v1 import (
    CreateProjectRequest,
    DeleteProjectRequest,
    GetProjectRequest,
    ListProjectsRequest,
    Project,
    ProjectServiceServicer,
)

pytestmark = pytest.mark.no_events


def creation() -> CreateProjectRequest:
    """Returns the request for a new project."""
    return CreateProjectRequest(project_id=f"p{new_id()}", project=Project(display_name="Acme"), request_id=new_id())


@contract(ProjectServiceServicer.CreateProject, ProjectServiceServicer.GetProject)
def test_a_new_project_is_active_and_its_request_id_returns_the_first_response(peer: Peer) -> None:
    request = creation()
    made = peer.projects.CreateProject(request)
    assert (made.name, made.display_name) == (f"projects/{request.project_id}", "Acme")
    assert made.state == Project.ACTIVE
    assert peer.projects.GetProject(GetProjectRequest(name=made.name)) == made
    assert peer.projects.CreateProject(request) == made


@contract(ProjectServiceServicer.CreateProject)
def test_create_project_refuses_a_name_that_is_taken(peer: Peer) -> None:
    request = creation()
    name = peer.projects.CreateProject(request).name
    request.request_id = new_id()
    with refused(AlreadyExists, "PROJECT_EXISTS", name=name):
        peer.projects.CreateProject(request)


@contract(ProjectServiceServicer.GetProject)
def test_get_project_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    with refused(NotFound, "PROJECT_NOT_FOUND", name="projects/unknown"):
        peer.projects.GetProject(GetProjectRequest(name="projects/unknown"))


@contract(ProjectServiceServicer.CreateProject, ProjectServiceServicer.ListProjects)
def test_list_projects_returns_those_of_the_names_that_exist_by_name(peer: Peer) -> None:
    made = [peer.projects.CreateProject(creation()).name for _ in range(2)]
    request = ListProjectsRequest(names=[made[1], "projects/unknown", made[0]])
    found = peer.projects.ListProjects(request)
    assert [project.name for project in found.projects] == sorted(made)
    assert not found.next_page_token


@contract(ProjectServiceServicer.DeleteProject)
def test_delete_project_refuses_one_that_holds_something_without_force(peer: Peer) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        peer.projects.DeleteProject(DeleteProjectRequest(name=peer.has.project))
    assert caught.value.reason == "PROJECT_NOT_EMPTY"


@contract(ProjectServiceServicer.DeleteProject)
def test_delete_project_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    with refused(NotFound, "PROJECT_NOT_FOUND", name="projects/unknown"):
        peer.projects.DeleteProject(DeleteProjectRequest(name="projects/unknown", force=True))


@contract(
    ProjectServiceServicer.CreateProject, ProjectServiceServicer.DeleteProject, ProjectServiceServicer.ListProjects
)
def test_a_deleted_project_is_being_deleted_and_its_creation_repeats_its_first_response(peer: Peer) -> None:
    request = creation()
    made = peer.projects.CreateProject(request)
    deleted = peer.projects.DeleteProject(DeleteProjectRequest(name=made.name, force=True))
    assert (deleted.name, deleted.state) == (made.name, Project.DELETING)
    (found,) = peer.projects.ListProjects(ListProjectsRequest(names=[made.name], show_deleted=True)).projects
    assert found.state in (Project.DELETING, Project.DELETED)
    assert peer.projects.CreateProject(request) == made

"""The gateway's part in the lifecycle of projects, which the conductor owns.

A member's list contains only its own project. A new project gets its first owner. A project that is being deleted loses its members and
accepts no further changes.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import grpc
import structlog
from google.protobuf.message import Message
from vesta_common.errors import FailedPrecondition, from_status
from vesta_contracts.conductor.v1 import GetProjectRequest, ListProjectsRequest, ListProjectsResponse, Project

from vesta_gateway.access.authorization import project_of_request
from vesta_gateway.access.caller import Caller
from vesta_gateway.calls.backends import CALLER_KEY, Backend
from vesta_gateway.contracts.methods import Rpc, get_rpc
from vesta_gateway.problems import status_of

_CREATE = "vesta.conductor.v1.ProjectService.CreateProject"
_DELETE = "vesta.conductor.v1.ProjectService.DeleteProject"
_GET = get_rpc("vesta.conductor.v1.ProjectService.GetProject")
_LIST = get_rpc("vesta.conductor.v1.ProjectService.ListProjects")
TIMEOUT_SECONDS = 10.0
FOLLOW_INTERVAL = timedelta(seconds=5)
NAMES_AT_ONCE = 1000  # per request to the conductor
_GONE = (Project.DELETING, Project.DELETED)
# Calls that are allowed in a project that is being deleted: they create and change nothing else.
_HARMLESS = ("Get", "List", "Delete", "Cancel")

log = structlog.get_logger()


class Projects:
    """Restricts project lists, adds first owners, and closes deleted projects.

    Args:
        add_owner: adds the member `owner` to a project without members. May block.
        has_members: returns whether a project has members. May block.
        close: deletes the members of a project permanently. May block.
        closed: returns the projects that any replica has closed. May block.
        with_members: returns the projects with members. May block.
        invalidate: called after keys were deleted, to invalidate cached lookups.
        conductor: the backend that owns projects.
        loop: the event loop for calls to the conductor.
    """

    def __init__(
        self,
        add_owner: Callable[[str], None],
        has_members: Callable[[str], bool],
        close: Callable[[str], None],
        closed: Callable[[], set[str]],
        with_members: Callable[[], Sequence[str]],
        invalidate: Callable[[], None],
        conductor: Backend,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._add_owner = add_owner
        self._has_members = has_members
        self._close = close
        self._closed_anywhere = closed
        self._with_members = with_members
        self._invalidate = invalidate
        self._closed: set[str] = set()
        self._conductor = conductor
        self._loop = loop

    def restrict_list(self, caller: Caller, request: Message) -> None:
        """Restricts a member's list to its own project. The platform owner lists all projects."""
        if isinstance(request, ListProjectsRequest) and not caller.is_platform_owner:
            del request.names[:]
            request.names.append(caller.project)

    async def process_response(self, rpc: Rpc, response: bytes) -> None:
        """Processes the response of a call: adds the first owner to a created project, and closes a deleted project.

        After a crash in between, `ensure`, `follow` or the client's retry completes it.
        """
        if rpc.full_name == _CREATE:
            await asyncio.to_thread(self._add_owner, Project.FromString(response).name)
        elif rpc.full_name == _DELETE:
            await self._close_project(Project.FromString(response).name)

    def check_open(self, rpc: Rpc, request: Message) -> None:
        """Checks that the project of a request is not being deleted, unless the call changes nothing.

        Raises:
            FailedPrecondition: PROJECT_DELETING, the project is being deleted or was deleted.
        """
        if not self._closed or not rpc.scope or rpc.descriptor.name.startswith(_HARMLESS):
            return
        project = project_of_request(rpc, request)
        if project in self._closed:
            raise _closed(project)

    async def follow(self) -> None:
        """Closes the projects that the conductor is deleting or has deleted, and loads the projects that other replicas have closed.

        Call it every `FOLLOW_INTERVAL`. It also completes closings that were interrupted by a crash.
        """
        self._closed = await asyncio.to_thread(self._closed_anywhere)
        names = await asyncio.to_thread(self._with_members)
        for begin in range(0, len(names), NAMES_AT_ONCE):
            request = ListProjectsRequest(
                names=names[begin : begin + NAMES_AT_ONCE], show_deleted=True, page_size=NAMES_AT_ONCE
            )
            raw = await self._conductor.unary(
                _LIST, request.SerializeToString(), [(CALLER_KEY, "services/gateway")], TIMEOUT_SECONDS
            )
            for project in ListProjectsResponse.FromString(raw).projects:
                if project.state in _GONE:
                    await self._close_project(project.name)

    async def _close_project(self, project: str) -> None:
        await asyncio.to_thread(self._close, project)
        self._closed.add(project)
        self._invalidate()
        log.info("project_closed", project=project)

    def ensure(self, project: str) -> None:
        """Checks that a project exists, and adds its first owner if it has no members. Blocks; call it in a thread.

        Raises:
            NotFound: the project does not exist.
            FailedPrecondition: PROJECT_DELETING, the project is being deleted.
        """
        if self._has_members(project):
            return
        request = GetProjectRequest(name=project).SerializeToString()
        response = self._conductor.unary(_GET, request, [(CALLER_KEY, "services/gateway")], TIMEOUT_SECONDS)
        try:
            known = Project.FromString(asyncio.run_coroutine_threadsafe(response, self._loop).result())
        except grpc.aio.AioRpcError as error:
            raise from_status(status_of(error)) from error
        if known.state in _GONE:
            raise _closed(project)
        self._add_owner(project)


def _closed(project: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{project} is being deleted, so that its resources cannot be created or changed; use another project",
        reason="PROJECT_DELETING",
        metadata={"project": project},
    )

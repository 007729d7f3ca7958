"""What the gateway adds to the conductor's projects.

A member's list holds its own project alone, a new project gets its first owner, and one that is being deleted loses its members and gets
nothing new.
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
NAMES_AT_ONCE = 1000  # that the conductor is asked about
_GONE = (Project.DELETING, Project.DELETED)
# What may still be asked of a project that is being deleted: nothing that creates or changes.
_HARMLESS = ("Get", "List", "Delete", "Cancel")

log = structlog.get_logger()


class Projects:
    """The gateway's part in projects.

    Args:
        add_owner: makes the member `owner` of a project that has no members. It may block.
        has_members: True for a project that has some. It may block.
        close: removes a project's members for good. It may block.
        closed: the projects that were closed, by any replica. It may block.
        with_members: the projects that have members. It may block.
        forget: told when keys were removed.
        conductor: who knows all projects.
        loop: where the conductor is asked.
    """

    def __init__(
        self,
        add_owner: Callable[[str], None],
        has_members: Callable[[str], bool],
        close: Callable[[str], None],
        closed: Callable[[], set[str]],
        with_members: Callable[[], Sequence[str]],
        forget: Callable[[], None],
        conductor: Backend,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._add_owner = add_owner
        self._has_members = has_members
        self._close = close
        self._closed_anywhere = closed
        self._with_members = with_members
        self._forget = forget
        self._closed: set[str] = set()
        self._conductor = conductor
        self._loop = loop

    def narrow(self, caller: Caller, request: Message) -> None:
        """Lets a member list its own project alone; the platform's owner lists all."""
        if isinstance(request, ListProjectsRequest) and not caller.is_platform_owner:
            del request.names[:]
            request.names.append(caller.project)

    async def welcome(self, rpc: Rpc, answer: bytes) -> None:
        """Gives a project that was just created its owner, and closes one that is being deleted.

        A kill in between is healed by `ensure` or by `follow`, or by the repeat of the call.
        """
        if rpc.full_name == _CREATE:
            await asyncio.to_thread(self._add_owner, Project.FromString(answer).name)
        elif rpc.full_name == _DELETE:
            await self._shut(Project.FromString(answer).name)

    def check_open(self, rpc: Rpc, request: Message) -> None:
        """Accepts what happens in a project that is not being deleted, and what creates or changes nothing.

        Raises:
            FailedPrecondition: the project is being deleted, or was.
        """
        if not self._closed or not rpc.scope or rpc.descriptor.name.startswith(_HARMLESS):
            return
        project = project_of_request(rpc, request)
        if project in self._closed:
            raise _closed(project)

    async def follow(self) -> None:
        """Closes the projects that the conductor deletes or has deleted, whatever was killed meanwhile, and learns which ones other
        replicas have closed. To be repeated every `FOLLOW_INTERVAL`.
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
                    await self._shut(project.name)

    async def _shut(self, project: str) -> None:
        await asyncio.to_thread(self._close, project)
        self._closed.add(project)
        self._forget()
        log.info("project_closed", project=project)

    def ensure(self, project: str) -> None:
        """Accepts a project that has members, or that the conductor knows, and then gives it its owner. Call it in a thread.

        Raises:
            NotFound: nobody knows it.
            FailedPrecondition: it is being deleted.
        """
        if self._has_members(project):
            return
        request = GetProjectRequest(name=project).SerializeToString()
        asking = self._conductor.unary(_GET, request, [(CALLER_KEY, "services/gateway")], TIMEOUT_SECONDS)
        try:
            known = Project.FromString(asyncio.run_coroutine_threadsafe(asking, self._loop).result())
        except grpc.aio.AioRpcError as error:
            raise from_status(status_of(error)) from error
        if known.state in _GONE:
            raise _closed(project)
        self._add_owner(project)


def _closed(project: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{project} is being deleted, and nothing can be created or changed in it; use another project",
        reason="PROJECT_DELETING",
        metadata={"project": project},
    )

"""What the gateway adds to the conductor's projects: a member's list holds its own alone, and a new project gets its first owner."""

import asyncio
from collections.abc import Callable

import grpc
from google.protobuf.message import Message
from vesta_common.errors import from_status
from vesta_common.trace import CALLER_KEY
from vesta_contracts.conductor.v1 import GetProjectRequest, ListProjectsRequest, Project

from vesta_gateway.backends import Backend
from vesta_gateway.caller import Caller
from vesta_gateway.contracts import Rpc, get_rpc
from vesta_gateway.problems import status_of

_CREATE = "vesta.conductor.v1.ProjectService.CreateProject"
_GET = get_rpc("vesta.conductor.v1.ProjectService.GetProject")
TIMEOUT_SECONDS = 10.0


class Projects:
    """The gateway's part in projects.

    Args:
        add_owner: makes the member `owner` of a project that has no members. It may block.
        has_members: True for a project that has some. It may block.
        conductor: who knows all projects.
        loop: where the conductor is asked.
    """

    def __init__(
        self,
        add_owner: Callable[[str], None],
        has_members: Callable[[str], bool],
        conductor: Backend,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._add_owner = add_owner
        self._has_members = has_members
        self._conductor = conductor
        self._loop = loop

    def narrow(self, caller: Caller, request: Message) -> None:
        """Lets a member list its own project alone; the platform's owner lists all."""
        if isinstance(request, ListProjectsRequest) and not caller.is_platform_owner:
            del request.names[:]
            request.names.append(caller.project)

    async def welcome(self, rpc: Rpc, answer: bytes) -> None:
        """Gives a project that was just created its owner. A kill in between is healed by `ensure`, or by the repeat of the call."""
        if rpc.full_name == _CREATE:
            await asyncio.to_thread(self._add_owner, Project.FromString(answer).name)

    def ensure(self, project: str) -> None:
        """Accepts a project that has members, or that the conductor knows, and then gives it its owner. Call it in a thread.

        Raises:
            NotFound: nobody knows it.
        """
        if self._has_members(project):
            return
        request = GetProjectRequest(name=project).SerializeToString()
        asking = self._conductor.unary(_GET, request, [(CALLER_KEY, "services/gateway")], TIMEOUT_SECONDS)
        try:
            asyncio.run_coroutine_threadsafe(asking, self._loop).result()
        except grpc.aio.AioRpcError as error:
            raise from_status(status_of(error)) from error
        self._add_owner(project)

"""What the gateway adds to the conductor's projects: a member's list holds its own alone, and a new project gets its first owner."""

import asyncio
from collections.abc import Callable

from google.protobuf.message import Message

from vesta_contracts.conductor.v1 import ListProjectsRequest, Project
from vesta_gateway.caller import Caller
from vesta_gateway.contracts import Rpc

_CREATE = "vesta.conductor.v1.ProjectService.CreateProject"

AddOwner = Callable[[str], None]
"""Makes the member `owner` of a project where it has none. It may block."""


class Projects:
    """The gateway's part in ProjectService."""

    def __init__(self, add_owner: AddOwner) -> None:
        self._add_owner = add_owner

    def narrow(self, caller: Caller, request: Message) -> None:
        """Lets a member list its own project alone; the platform's owner lists all."""
        if isinstance(request, ListProjectsRequest) and not caller.is_platform_owner:
            del request.names[:]
            request.names.append(caller.project)

    async def welcome(self, rpc: Rpc, answer: bytes) -> None:
        """Gives a project that was just created its owner. A repeat of CreateProject heals what a kill left out."""
        if rpc.full_name == _CREATE:
            await asyncio.to_thread(self._add_owner, Project.FromString(answer).name)

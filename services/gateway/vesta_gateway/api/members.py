"""MemberService: manages the members of a project and their roles."""

from typing import Any

from google.protobuf.empty_pb2 import Empty
from vesta_common.errors import InvalidArgument, Violation
from vesta_common.ids import new_id
from vesta_common.resources.methods import revise, run_once
from vesta_common.resources.pages import read_page
from vesta_common.storage.postgres import Connection
from vesta_contracts.gateway.v1 import (
    CreateMemberRequest,
    DeleteMemberRequest,
    GetMemberRequest,
    ListMembersRequest,
    ListMembersResponse,
    Member,
    MemberServiceServicer,
    Role,
    UpdateMemberRequest,
)

from vesta_gateway.api.access import AccessApi
from vesta_gateway.store import members

MUTABLE = ("display_name", "role")


class MemberApi(AccessApi, MemberServiceServicer):
    """Implements MemberService."""

    def CreateMember(self, request: CreateMemberRequest, context: Any) -> Member:
        _check_role(request.member)
        self._ensure_project(request.parent)
        project = request.parent.split("/")[1]

        member_id = request.member_id or new_id()

        def insert(connection: Connection) -> Member:
            return members.insert(connection, project, member_id, request.member, self._clock.now())

        return run_once(self._postgres, request, Member, insert)

    def GetMember(self, request: GetMemberRequest, context: Any) -> Member:
        with self._postgres.transaction() as connection:
            return members.get(connection, request.name)

    def ListMembers(self, request: ListMembersRequest, context: Any) -> ListMembersResponse:
        with self._postgres.transaction() as connection:
            page, token = members.list_page(connection, request.parent.split("/")[1], read_page(request))
        return ListMembersResponse(members=page, next_page_token=token)

    def UpdateMember(self, request: UpdateMemberRequest, context: Any) -> Member:
        """Changes a member's display name or role."""

        def update(connection: Connection) -> Member:
            current = members.lock(connection, request.member.name)
            updated = revise(current, request.member, request.update_mask, MUTABLE)
            _check_role(updated)
            return members.update(connection, updated, self._clock.now())

        member = self._postgres.run(update)
        self._invalidate()
        return member

    def DeleteMember(self, request: DeleteMemberRequest, context: Any) -> Empty:
        """Deletes a member and its keys."""
        self._postgres.run(lambda connection: members.delete(connection, request.name))
        self._invalidate()
        return Empty()


def _check_role(member: Member) -> None:
    if member.role == Role.ROLE_UNSPECIFIED:
        raise InvalidArgument(
            "member.role is required: viewer, annotator, reviewer, engineer or owner",
            reason="FIELD_INVALID",
            violations=[Violation("member.role", "is required")],
        )

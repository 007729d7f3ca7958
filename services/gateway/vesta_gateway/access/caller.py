"""The caller of a request: a member of one project, or the platform owner."""

from dataclasses import dataclass
from datetime import datetime

from vesta_contracts.gateway.v1 import Role

OWNER_ID = "owner"
PLATFORM_OWNER = "platform/owner"


@dataclass(frozen=True)
class Caller:
    """The identity behind an API key.

    Attributes:
        key: identifies the key in rate limits; never its secret.
        project: `projects/acme`; empty for the platform owner.
        member: `projects/acme/members/ada`; empty for the platform owner.
        role: the member's role; OWNER for the platform owner.
        expire_time: when the key expires; None for never.
    """

    key: str
    project: str
    member: str
    role: "Role.ValueType"
    expire_time: datetime | None = None

    @property
    def is_platform_owner(self) -> bool:
        """True for the platform owner, who has all rights in every project."""
        return not self.project

    def acting_in(self, project: str) -> str:
        """Returns the name the caller acts as. For the platform owner: member `owner`, or `platform/owner` without a project."""
        if not self.is_platform_owner:
            return self.member
        return f"{project}/members/{OWNER_ID}" if project else PLATFORM_OWNER


def role_word(role: "Role.ValueType") -> str:
    """Returns the lower-case name of a role: `annotator` for ROLE_ANNOTATOR."""
    return Role.Name(role).removeprefix("ROLE_").lower()


def platform_owner(key: str) -> Caller:
    return Caller(key, "", "", Role.ROLE_OWNER)

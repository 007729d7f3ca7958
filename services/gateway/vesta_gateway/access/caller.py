"""Who calls: a member of one project, or the platform's owner."""

from dataclasses import dataclass
from datetime import datetime

from vesta_contracts.gateway.v1 import Role

OWNER_ID = "owner"
PLATFORM_OWNER = "platform/owner"


@dataclass(frozen=True)
class Caller:
    """Whom an API key stands for.

    Attributes:
        key: names the key in limits; never its secret.
        project: `projects/acme`; empty for the platform's owner.
        member: `projects/acme/members/ada`; empty for the platform's owner.
        role: what the member may do; OWNER for the platform's owner.
        expire_time: from when on the key is refused; never if None.
    """

    key: str
    project: str
    member: str
    role: "Role.ValueType"
    expire_time: datetime | None = None

    @property
    def is_platform_owner(self) -> bool:
        """True for the key that may do everything in every project."""
        return not self.project

    def acting_in(self, project: str) -> str:
        """As whom the caller acts in a project; the platform's owner is its member `owner`, and `platform/owner` outside of any."""
        if not self.is_platform_owner:
            return self.member
        return f"{project}/members/{OWNER_ID}" if project else PLATFORM_OWNER


def role_word(role: "Role.ValueType") -> str:
    """`annotator` for ROLE_ANNOTATOR."""
    return Role.Name(role).removeprefix("ROLE_").lower()


def platform_owner(key: str) -> Caller:
    """The platform's owner."""
    return Caller(key, "", "", Role.ROLE_OWNER)

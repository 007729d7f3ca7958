"""Generates docs/roles.md from the table of rights: `python -m vesta_gateway.access.roles_page > docs/roles.md`."""

import sys
from collections.abc import Mapping

from vesta_contracts.gateway.v1 import Role

from vesta_gateway.access.authorization import NOBODY, PLATFORM_OWNER, RIGHTS, ROLES, Right
from vesta_gateway.access.caller import role_word

_ROLES = (Role.ROLE_VIEWER, Role.ROLE_ANNOTATOR, Role.ROLE_REVIEWER, Role.ROLE_ENGINEER, Role.ROLE_OWNER)
_INTRODUCTION = """# Roles

A key stands for a member of one project, and the member has one role in it. The platform's owner key, whose hash is in the
gateway's settings, may do everything that is for anybody, in every project, where it acts as the member `owner`.

* **viewer** reads, and asks deployed models.
* **annotator** reads and answers tasks, and does not see what models say of images: items and events come without it, and tasks have
  suggestions only where they are not blind. Answers that measure a model must not lean on it.
* **reviewer** is an annotator who also decides reviews, and sees what models say.
* **engineer** builds: everything but members and keys.
* **owner** may do everything in the project.

Whatever the role: a request that names something of another project is refused with `PERMISSION_DENIED`, in the same words
whether that thing exists or not.

Written from `services/gateway/vesta_gateway/access/authorization.py` by `python -m vesta_gateway.access.roles_page`.
"""


def roles_page(rights: Mapping[str, Right] = RIGHTS) -> str:
    """Returns the page, with one table per service."""
    words = [role_word(role) for role in _ROLES]
    parts = [_INTRODUCTION]
    package = ""
    for name in sorted(rights):
        own = name.split(".")[1]
        if own != package:
            package = own
            parts.append(
                f"\n## {package}\n\n| call | {' | '.join(words)} | platform's owner |\n|---|{':-:|' * (len(words) + 1)}\n"
            )
        parts.append(f"| {'.'.join(name.split('.')[3:])} | {' | '.join(_marks(rights[name]))} |\n")
    return "".join(parts)


def _marks(right: Right) -> list[str]:
    """Returns the cells for the roles and for the platform owner."""
    if right is NOBODY:
        return [" "] * (len(_ROLES) + 1)
    if right is PLATFORM_OWNER:
        return [" "] * len(_ROLES) + ["✓"]
    allowed = ROLES.get(right, frozenset(_ROLES))
    return ["✓" if role in allowed else " " for role in _ROLES] + ["✓"]


if __name__ == "__main__":
    sys.stdout.write(roles_page())

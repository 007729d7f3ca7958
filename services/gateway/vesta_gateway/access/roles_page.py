"""Generates docs/roles.md from the table of rights: `python -m vesta_gateway.access.roles_page > docs/roles.md`."""

import sys
from collections.abc import Mapping

from vesta_contracts.gateway.v1 import Role

from vesta_gateway.access.authorization import NOBODY, PLATFORM_OWNER, RIGHTS, ROLES, Right
from vesta_gateway.access.caller import role_word

_ROLES = (Role.ROLE_VIEWER, Role.ROLE_ANNOTATOR, Role.ROLE_REVIEWER, Role.ROLE_ENGINEER, Role.ROLE_OWNER)
_INTRODUCTION = """# Roles

An API key authenticates a member of one project, and the member has one role in it. The owner key of the platform, whose hash is in the
settings of the gateway, has all permissions of all roles in all projects; its identity there is the member `owner`.

* **viewer** can read, and predict with deployed models.
* **annotator** can read and annotate, but cannot see predictions: items and events are returned without them, and tasks have
  pre-annotations only if they are not blind, so that predictions do not influence answers that are used to measure models.
* **reviewer** is an annotator who can also review, and can see predictions.
* **engineer** can do everything except manage members and API keys.
* **owner** can do everything in the project.

For all roles, a request that refers to a resource of another project is rejected with `PERMISSION_DENIED`, with the same message
whether or not the resource exists.

Generated from `services/gateway/vesta_gateway/access/authorization.py` by `python -m vesta_gateway.access.roles_page`.
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

"""The dependencies of the services that change who has access to a project."""

from collections.abc import Callable

from vesta_common.clock import Clock
from vesta_common.storage.postgres import Postgres


class AccessApi:
    """Base class of MemberApi and ApiKeyApi.

    Args:
        invalidate: called after a change that revokes access, to invalidate cached lookups.
        ensure_project: raises NotFound if a project does not exist; adds the first owner to a project without members.
    """

    def __init__(
        self, postgres: Postgres, clock: Clock, invalidate: Callable[[], None], ensure_project: Callable[[str], None]
    ) -> None:
        self._postgres = postgres
        self._clock = clock
        self._invalidate = invalidate
        self._ensure_project = ensure_project

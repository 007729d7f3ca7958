"""EventService: the live events of a project."""

from collections.abc import AsyncIterator
from typing import Any

from vesta_contracts.gateway.v1 import EventServiceServicer, ProjectEvent, WatchEventsRequest

from vesta_gateway.watchers import Watchers


class EventApi(EventServiceServicer):
    """Serves live events."""

    def __init__(self, watchers: Watchers) -> None:
        self._watchers = watchers

    def WatchEvents(self, request: WatchEventsRequest, context: Any) -> AsyncIterator[ProjectEvent]:
        """The events of a project as they happen, from now on."""
        return self._watchers.watch(request.parent, request.type_prefixes)

"""EventService: the live events of a project."""

from collections.abc import AsyncIterator
from typing import Any

from vesta_common import trace
from vesta_contracts.gateway.v1 import EventServiceServicer, ProjectEvent, Role, WatchEventsRequest

from vesta_gateway.caller import role_word
from vesta_gateway.watchers import PREDICTION_TYPES, Watchers


class EventApi(EventServiceServicer):
    """Serves live events."""

    def __init__(self, watchers: Watchers) -> None:
        self._watchers = watchers

    def WatchEvents(self, request: WatchEventsRequest, context: Any) -> AsyncIterator[ProjectEvent]:
        """The events of a project as they happen, from now on; to annotators without predictions."""
        hidden = PREDICTION_TYPES if trace.role() == role_word(Role.ROLE_ANNOTATOR) else ()
        return self._watchers.watch(request.parent, request.type_prefixes, hidden)

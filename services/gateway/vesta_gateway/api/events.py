"""EventService: streams the events of a project."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from vesta_common import trace
from vesta_common.clock import Clock
from vesta_common.errors import Unavailable
from vesta_contracts.gateway.v1 import EventServiceServicer, ProjectEvent, Role, WatchEventsRequest

from vesta_gateway.access.caller import role_word
from vesta_gateway.events.replay import Replay, time_of
from vesta_gateway.events.subscribers import PREDICTION_TYPES, Watchers


class EventApi(EventServiceServicer):
    """Implements EventService."""

    def __init__(self, watchers: Watchers, replay: Replay | None, clock: Clock) -> None:
        self._watchers = watchers
        self._replay = replay
        self._clock = clock

    def WatchEvents(self, request: WatchEventsRequest, context: Any) -> AsyncIterator[ProjectEvent]:
        """Streams the events of a project, from now on or after a given event. Annotators do not receive predictions."""
        hidden = PREDICTION_TYPES if trace.role() == role_word(Role.ROLE_ANNOTATOR) else ()
        if not request.after_event_id:
            return self._watchers.watch(request.parent, request.type_prefixes, hidden)
        if self._replay is None:
            raise Unavailable(
                "this platform has no event broker; set KAFKA_BOOTSTRAP of the gateway", reason="BACKEND_UNAVAILABLE"
            )
        since = time_of(request.after_event_id, self._clock.now())
        earlier = partial(asyncio.to_thread, self._replay.read, request.parent, since)
        return self._watchers.watch(request.parent, request.type_prefixes, hidden, earlier)

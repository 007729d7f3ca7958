"""A project's events without an end: where the stream breaks off, as when a gateway is replaced, it goes on after the last event."""

from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta

from vesta_contracts.gateway.v1 import ProjectEvent, WatchEventsRequest

from vesta.errors import ApiError
from vesta.overload import Patience

PATIENCE = timedelta(minutes=5)
PAUSE_SECONDS = 0.5
KNOWN_MAX = 10_000


def watch(
    watch_events: Callable[[WatchEventsRequest], Iterator[ProjectEvent]],
    request: WatchEventsRequest,
    patience: Callable[[], Patience] = lambda: Patience(PATIENCE),
) -> Iterator[ProjectEvent]:
    """Each event once, in the order in which the gateway tells them.

    Args:
        watch_events: the RPC.
        patience: how long a gateway may be away, from one event to the next.

    Raises:
        ApiError: the stream cannot go on, or there was none yet that could.
    """
    asked = WatchEventsRequest()
    asked.CopyFrom(request)
    known: deque[str] = deque(maxlen=KNOWN_MAX)
    trying = patience()
    while True:
        try:
            for event in watch_events(asked):
                trying = patience()
                asked.after_event_id = event.id
                if event.id not in known:
                    known.append(event.id)
                    yield event
        except ApiError as error:
            if not (error.is_outage and asked.after_event_id and trying.pause(PAUSE_SECONDS)):
                raise
        else:
            return

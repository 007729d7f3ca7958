"""The events of a project without end: an interrupted stream, for example by a restart of a gateway, resumes after the last event."""

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
    """Yields each event once, in the order of the gateway.

    Args:
        watch_events: the RPC.
        patience: how long the gateway may be unavailable between two events.

    Raises:
        ApiError: the stream cannot be resumed, or has never started.
    """
    requested = WatchEventsRequest()
    requested.CopyFrom(request)
    known: deque[str] = deque(maxlen=KNOWN_MAX)
    trying = patience()
    while True:
        try:
            for event in watch_events(requested):
                trying = patience()
                requested.after_event_id = event.id
                if event.id not in known:
                    known.append(event.id)
                    yield event
        except ApiError as error:
            if not (error.is_outage and requested.after_event_id and trying.pause(PAUSE_SECONDS)):
                raise
        else:
            return

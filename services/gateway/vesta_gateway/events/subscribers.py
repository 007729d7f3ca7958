"""Delivers events to the watchers of a project through a bounded queue per watcher. A watcher that reads too slowly is disconnected."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

from vesta_common.errors import ResourceExhausted, Unavailable, VestaError
from vesta_contracts.gateway.v1 import ProjectEvent

QUEUE_EVENTS_MAX = 1000
# Delivered only on request, because there are far more of them than of all other events.
UNASKED_TYPES = frozenset({"vesta.serving.prediction.v1.created"})
# Predictions are hidden from annotators, whose answers are used to check them.
PREDICTION_TYPES = frozenset({"vesta.serving.prediction.v1.created", "vesta.pipelining.observation.v1.created"})


class _Watcher:
    def __init__(self, type_prefixes: Sequence[str], hidden_types: Collection[str], queue_max: int) -> None:
        self._type_prefixes = tuple(type_prefixes)
        self._hidden_types = hidden_types
        self._queue: asyncio.Queue[ProjectEvent | VestaError] = asyncio.Queue(queue_max + 1)
        self._queue_max = queue_max
        self._is_over = False

    def wants(self, event_type: str) -> bool:
        if event_type in self._hidden_types:
            return False
        return event_type.startswith(self._type_prefixes) if self._type_prefixes else event_type not in UNASKED_TYPES

    def offer(self, event: ProjectEvent) -> None:
        if self._is_over:
            return
        if self._queue.qsize() >= self._queue_max:
            self.end(
                ResourceExhausted(
                    f"the client is too slow: {self._queue_max} events are queued; watch again, and read "
                    "faster or watch fewer types",
                    reason="WATCHER_TOO_SLOW",
                )
            )
            return
        self._queue.put_nowait(event)

    def end(self, error: VestaError) -> None:
        """Ends the stream with an error after the queued events."""
        if not self._is_over:
            self._is_over = True
            self._queue.put_nowait(error)

    async def read(self) -> ProjectEvent:
        entry = await self._queue.get()
        if isinstance(entry, VestaError):
            raise entry
        return entry


class Watchers:
    """The watchers by project. Not thread-safe; use it in one event loop."""

    def __init__(self, queue_events_max: int = QUEUE_EVENTS_MAX) -> None:
        self._queue_events_max = queue_events_max
        self._by_project: dict[str, set[_Watcher]] = defaultdict(set)
        self._is_closed = False

    @property
    def count(self) -> int:
        """The number of watchers."""
        return sum(len(watchers) for watchers in self._by_project.values())

    def is_watched(self, project: str) -> bool:
        """Returns True if a project has watchers. May be called from any thread."""
        return project in self._by_project

    def publish(self, project: str, event: ProjectEvent) -> None:
        """Queues an event for the watchers of a project."""
        for watcher in tuple(self._by_project.get(project, ())):
            if watcher.wants(event.type):
                watcher.offer(event)

    async def watch(
        self,
        project: str,
        type_prefixes: Sequence[str],
        hidden_types: Collection[str] = (),
        earlier: Callable[[], Awaitable[Sequence[ProjectEvent]]] | None = None,
    ) -> AsyncIterator[ProjectEvent]:
        """Yields the events of a project from now on.

        Args:
            hidden_types: event types that the watcher must not receive.
            earlier: returns past events to deliver first. Called after new events are being queued, so the two may overlap.

        Raises:
            ResourceExhausted: WATCHER_TOO_SLOW, the queue is full.
            Unavailable: STOPPING, the gateway stops.
        """
        if self._is_closed:
            raise _closing()
        watcher = _Watcher(type_prefixes, hidden_types, self._queue_events_max)
        self._by_project[project].add(watcher)
        try:
            sent_ids: set[str] = set()
            for event in await earlier() if earlier else ():
                sent_ids.add(event.id)
                if watcher.wants(event.type):
                    yield event
            while True:
                event = await watcher.read()
                if event.id not in sent_ids:
                    yield event
        finally:
            self._by_project[project].discard(watcher)
            if not self._by_project[project]:
                del self._by_project[project]

    def close(self) -> None:
        """Ends the streams of all watchers."""
        self._is_closed = True
        for watchers in self._by_project.values():
            for watcher in watchers:
                watcher.end(_closing())


def _closing() -> Unavailable:
    return Unavailable("the gateway is shutting down; watch again", reason="STOPPING")

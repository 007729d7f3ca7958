"""Calls event handlers in one transaction with the inbox, so that each event takes effect once."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby

from opentelemetry.trace import SpanKind

from vesta_common import trace
from vesta_common.clock import Clock
from vesta_common.events import inbox
from vesta_common.events.cloudevents import Event
from vesta_common.events.consumer.metrics import ConsumerMetrics
from vesta_common.storage.postgres import Connection, Postgres

Handler = Callable[[Connection, Event], None]
"""Handles one event in the given transaction. An exception rolls the transaction back."""

BatchHandler = Callable[[Connection, Sequence[Event]], None]
"""Handles consecutive events of one type, in order, in the given transaction."""

Preparation = Callable[[Sequence[Event]], BatchHandler]
"""Calls other services about events of one type before the transaction, to keep it short. Returns the handler for the transaction, whose
statements run in a pipeline (psycopg): those that wait for no result take one round trip together with the commit."""


class Handlers:
    """The handlers of one consumer by event type. Each type belongs to exactly one of the three mappings.

    Args:
        consumer: the consumer's name in the inbox.

    Raises:
        ValueError: a type has two handlers.
    """

    def __init__(
        self,
        consumer: str,
        postgres: Postgres,
        clock: Clock,
        metrics: ConsumerMetrics,
        singly: Mapping[str, Handler],
        together: Mapping[str, BatchHandler],
        preparations: Mapping[str, Preparation],
    ) -> None:
        duplicates = [kind for kind, count in Counter([*singly, *together, *preparations]).items() if count > 1]
        if duplicates:
            raise ValueError(f"the consumer {consumer} has two handlers for {', '.join(duplicates)}; remove one")
        self._consumer = consumer
        self._postgres = postgres
        self._clock = clock
        self._metrics = metrics
        self._handlers = {event_type: _one_by_one(handler) for event_type, handler in singly.items()}
        self._handlers |= {event_type: _in_one_span(handler) for event_type, handler in together.items()}
        self._preparations = dict(preparations)
        self.types = self._handlers.keys() | self._preparations.keys()

    def handle(self, events: Sequence[Event]) -> None:
        """Handles the events that were not handled before, in order, in one transaction.

        Raises:
            Exception: any error of a handler; the transaction was rolled back.
        """
        if not events:
            return
        prepared = self._prepared(events)
        handlers = self._handlers | prepared

        def work(connection: Connection) -> int:
            with connection.pipeline() if prepared else nullcontext():
                new = inbox.new_among(connection, self._consumer, [event.id for event in events])
                fresh = list({event.id: event for event in events if event.id in new}.values())
                for event_type, run in groupby(fresh, key=lambda event: event.type):
                    handlers[event_type](connection, list(run))
                if prepared:
                    connection.commit()
            return len(fresh)

        self._metrics.handled.labels(self._consumer).inc(self._postgres.run(work))
        self._metrics.age.labels(self._consumer).set(max(0.0, (self._clock.now() - events[-1].time).total_seconds()))

    def _prepared(self, events: Sequence[Event]) -> dict[str, BatchHandler]:
        """Runs the preparations of the events and returns the resulting handlers by event type."""
        prepared = {}
        for event_type, ask in self._preparations.items():
            requested = [event for event in events if event.type == event_type]
            if requested:
                with _span(requested):
                    prepared[event_type] = _in_one_span(ask(requested))
        return prepared


def _one_by_one(handler: Handler) -> BatchHandler:
    def handle(connection: Connection, events: Sequence[Event]) -> None:
        for event in events:
            with _span([event]):
                handler(connection, event)

    return handle


def _in_one_span(handler: BatchHandler) -> BatchHandler:
    def handle(connection: Connection, events: Sequence[Event]) -> None:
        with _span(events):
            handler(connection, events)

    return handle


def _span(events: Sequence[Event]) -> AbstractContextManager[None]:
    """Opens a span in the trace of the first event. The traces of the other events are linked."""
    first, *others = events
    return trace.span(first.type, first.carrier, SpanKind.CONSUMER, [event.carrier for event in others])

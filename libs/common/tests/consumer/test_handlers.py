"""Events have their effects once, all of a transaction or none, whichever kind of handler they have."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry
from psycopg.errors import DivisionByZero
from vesta_common.clock import ManualClock
from vesta_common.events.cloudevents import Event, new_event
from vesta_common.events.consumer.handlers import BatchHandler, Handler, Handlers, Preparation
from vesta_common.events.consumer.metrics import ConsumerMetrics
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.annotation.v1 import TaskAccepted, TaskCancelled

ACCEPTED = "vesta.annotation.task.v1.accepted"
CANCELLED = "vesta.annotation.task.v1.cancelled"
KEY = "projects/acme/campaigns/vans/tasks/1"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def postgres(postgres: Postgres) -> Postgres:
    with postgres.transaction() as connection:
        connection.execute("CREATE TABLE effects (event_id text, place int GENERATED ALWAYS AS IDENTITY)")
    return postgres


def accepted(age: timedelta = timedelta(0)) -> Event:
    return new_event("annotation", KEY, TaskAccepted(task=KEY), NOW - age)


def cancelled() -> Event:
    return new_event("annotation", KEY, TaskCancelled(task=KEY), NOW)


def record_effect(connection: Connection, event: Event) -> None:
    connection.execute("INSERT INTO effects (event_id) VALUES (%s)", (event.id,))


def record_effects(connection: Connection, events: Sequence[Event]) -> None:
    for event in events:
        record_effect(connection, event)


def effects(postgres: Postgres) -> list[str]:
    with postgres.transaction() as connection:
        return [row["event_id"] for row in connection.execute("SELECT event_id FROM effects ORDER BY place").fetchall()]


def ids(*events: Event) -> list[str]:
    return [event.id for event in events]


def handlers_of(
    postgres: Postgres,
    singly: dict[str, Handler] | None = None,
    together: dict[str, BatchHandler] | None = None,
    preparations: dict[str, Preparation] | None = None,
    registry: CollectorRegistry | None = None,
) -> Handlers:
    metrics = ConsumerMetrics("datasets", registry or CollectorRegistry())
    return Handlers("labels", postgres, ManualClock(NOW), metrics, singly or {}, together or {}, preparations or {})


def test_each_event_has_its_effect_once_in_order(postgres: Postgres) -> None:
    handlers = handlers_of(postgres, {ACCEPTED: record_effect, CANCELLED: record_effect})
    one, two, three = accepted(), cancelled(), accepted()
    handlers.handle([one, two])
    handlers.handle([two, three, three, one])
    assert effects(postgres) == ids(one, two, three)


def test_what_one_handler_raises_undoes_the_effects_of_all(postgres: Postgres) -> None:
    def refuse(connection: Connection, event: Event) -> None:
        record_effect(connection, event)
        raise KeyError(event.id)

    one, two = accepted(), cancelled()
    with pytest.raises(KeyError):
        handlers_of(postgres, {ACCEPTED: record_effect, CANCELLED: refuse}).handle([one, two])
    assert effects(postgres) == []
    handlers_of(postgres, {ACCEPTED: record_effect, CANCELLED: record_effect}).handle([one, two])
    assert effects(postgres) == ids(one, two)


def test_events_that_follow_one_another_are_handled_together_and_keep_their_place_among_others(
    postgres: Postgres,
) -> None:
    runs: list[int] = []

    def together(connection: Connection, events: Sequence[Event]) -> None:
        runs.append(len(events))
        record_effects(connection, events)

    events = [accepted(), accepted(), cancelled(), accepted()]
    handlers_of(postgres, {CANCELLED: record_effect}, {ACCEPTED: together}).handle(events)
    assert runs == [2, 1]
    assert effects(postgres) == ids(*events)


def test_others_are_asked_before_the_transaction_about_all_events_of_the_type(postgres: Postgres) -> None:
    asked: list[list[str]] = []

    def ask(events: Sequence[Event]) -> BatchHandler:
        assert effects(postgres) == []
        asked.append(ids(*events))
        return record_effects

    one, two, three = accepted(), cancelled(), accepted()
    handlers_of(postgres, {CANCELLED: record_effect}, preparations={ACCEPTED: ask}).handle([one, two, three])
    assert asked == [ids(one, three)]
    assert effects(postgres) == ids(one, two, three)


def test_a_statement_that_fails_in_the_pipeline_undoes_the_effects_of_all_and_is_repeated(postgres: Postgres) -> None:
    failing = True

    def ask(_: Sequence[Event]) -> BatchHandler:
        def handle(connection: Connection, events: Sequence[Event]) -> None:
            record_effects(connection, events)
            if failing:
                connection.execute("SELECT 1 / 0")  # nobody reads its result

        return handle

    handlers = handlers_of(postgres, preparations={ACCEPTED: ask})
    one, two = accepted(), accepted()
    with pytest.raises(DivisionByZero):
        handlers.handle([one, two])
    assert effects(postgres) == []
    failing = False
    handlers.handle([one, two])
    assert effects(postgres) == ids(one, two)


def test_nobody_is_asked_about_events_that_are_not_there(postgres: Postgres) -> None:
    def ask(_: Sequence[Event]) -> BatchHandler:
        raise AssertionError("nobody was to be asked")

    handlers = handlers_of(postgres, {CANCELLED: record_effect}, preparations={ACCEPTED: ask})
    handlers.handle([])
    handlers.handle([cancelled()])
    assert len(effects(postgres)) == 1


def test_effects_are_counted_and_repeats_are_not(postgres: Postgres) -> None:
    registry = CollectorRegistry()
    handlers = handlers_of(postgres, {ACCEPTED: record_effect}, registry=registry)
    old, older = accepted(timedelta(minutes=1)), accepted(timedelta(minutes=2))
    handlers.handle([old, older])
    handlers.handle([older])
    assert registry.get_sample_value("vesta_datasets_events_handled_total", {"consumer": "labels"}) == 2
    assert registry.get_sample_value("vesta_datasets_event_age_seconds", {"consumer": "labels"}) == 120


def test_an_event_of_a_clock_that_is_ahead_is_not_younger_than_now(postgres: Postgres) -> None:
    registry = CollectorRegistry()
    handlers_of(postgres, {ACCEPTED: record_effect}, registry=registry).handle([accepted(timedelta(minutes=-5))])
    assert registry.get_sample_value("vesta_datasets_event_age_seconds", {"consumer": "labels"}) == 0


def test_an_event_type_with_two_handlers_is_refused_at_the_start(postgres: Postgres) -> None:
    with pytest.raises(ValueError, match=f"the consumer labels has two handlers for {ACCEPTED}; remove one"):
        handlers_of(postgres, {ACCEPTED: record_effect}, {ACCEPTED: record_effects})

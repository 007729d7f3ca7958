"""Work that waits is counted by state, and what waits to be published by its relay."""

import time
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry, Gauge
from vesta_common.events.broker import Broker
from vesta_common.events.cloudevents import new_event
from vesta_common.events.outbox import Relay, publish
from vesta_common.runtime.service import HasMetrics
from vesta_common.storage.backlog import Backlog
from vesta_common.storage.postgres import Postgres
from vesta_contracts.annotation.v1 import TaskAccepted


def waited_for(registry: CollectorRegistry) -> tuple[float, float]:
    """How many events wait and for how long, once the relay has looked."""
    deadline = time.monotonic() + 30
    while not (waiting := registry.get_sample_value("vesta_sample_outbox_events")):
        assert time.monotonic() < deadline
    return waiting, registry.get_sample_value("vesta_sample_outbox_age_seconds") or 0.0


def test_states_without_work_read_zero(postgres: Postgres) -> None:
    registry = CollectorRegistry()
    counts = Gauge("runs", "Runs", ["state"], registry=registry)
    ages = Gauge("runs_age_seconds", "Age", ["state"], registry=registry)
    rows = [{"state": "QUEUED", "count": 2, "age_seconds": 7.5}]
    backlog = Backlog(postgres, lambda _: rows, ("QUEUED", "RUNNING"), counts, ages)
    assert backlog.step() is False
    rows.clear()
    values = [registry.get_sample_value("runs", {"state": state}) for state in ("QUEUED", "RUNNING")]
    assert values == [2, 0]
    assert registry.get_sample_value("runs_age_seconds", {"state": "QUEUED"}) == 7.5
    backlog.step()
    assert registry.get_sample_value("runs_age_seconds", {"state": "QUEUED"}) == 0


def test_a_relay_tells_how_many_events_wait_and_since_when(postgres: Postgres) -> None:
    relay, registry = Relay(postgres, Broker("127.0.0.1:1")), CollectorRegistry()
    assert isinstance(relay, HasMetrics)
    relay.measure("sample", registry)
    subject, then = "projects/acme/campaigns/vans/tasks/1", datetime.now(UTC) - timedelta(minutes=5)
    with postgres.transaction() as connection:
        for _ in range(3):
            publish(connection, new_event("annotation", subject, TaskAccepted(task=subject), then))
    relay.start()  # the broker is away
    try:
        values = waited_for(registry)
    finally:
        relay.stop(timedelta(seconds=10))
    assert values[0] == 3
    assert 300 <= values[1] < 400
